"""Benchmarks of what users wait for, as ratios to the machine they run on."""
