"""How many cores this process may use: all that the system allows, or its share of them."""

import os

SHARE = "METARL_CORES"  # the environment variable by which who starts a process gives it a share
_share: int | None = None


def usable() -> int:
    """Cores, and so threads, that this process should use."""
    if _share is not None:
        return _share
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get(SHARE, "")
    return min(allowed, max(1, int(given))) if given.isdigit() else allowed


def limit(cores: int) -> None:
    """Uses no more than so many cores from now on: this process shares the machine with other workers."""
    global _share
    _share = cores
