"""Diagonal Gaussian policies."""
