"""How many cores this process may use: all that the system allows, or its share of them."""

import os

_share: int | None = None


def usable() -> int:
    """Cores, and so threads, that this process should use."""
    if _share is not None:
        return _share
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit(cores: int) -> None:
    """Uses no more than so many cores from now on: this process shares the machine with other workers."""
    global _share
    _share = cores
