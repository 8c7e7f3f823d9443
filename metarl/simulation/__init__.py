"""Stepping many copies of a simulated task, and its Gymnasium face."""
