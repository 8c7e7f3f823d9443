"""The error that is a user's mistake, and the search for what the user may have meant."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user: the message is one line, names the wrong thing and the nearest right one.

    Launchers print the message without a traceback and exit non-zero.
    """


class WorkerError(Exception):
    """Workers were lost for good: the message is one line. The run goes on from its last checkpoint."""


def nearest(wrong: str, candidates: Iterable[str]) -> str | None:
    """Returns the candidate most like `wrong`, or None if none is like it."""
    lowered = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(wrong.lower(), lowered, n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def did_you_mean(wrong: str, candidates: Iterable[str]) -> str:
    """Returns '; did you mean X?' for the candidate nearest to `wrong`, or an empty string."""
    near = nearest(wrong, candidates)
    return f"; did you mean {near!r}?" if near is not None else ""
