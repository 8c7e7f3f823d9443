"""Command-line entry points: they parse and delegate."""
