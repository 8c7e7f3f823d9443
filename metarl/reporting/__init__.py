"""Figures of finished and running experiments, made from run folders alone."""
