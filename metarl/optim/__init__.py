"""Optimisers and the loops around them, pure where possible."""
