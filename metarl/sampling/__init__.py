"""Collecting `Steps` from a task family with a policy."""
