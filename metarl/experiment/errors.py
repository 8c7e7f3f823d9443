"""The error that is a user's mistake, and the search for what the user may have meant."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user: the message is one line, names the wrong thing and the nearest right one.

    Launchers print the message without a traceback and exit non-zero.
    """


def did_you_mean(wrong: str, candidates: Iterable[str]) -> str:
    """Returns '; did you mean X?' for the candidate nearest to `wrong`, or an empty string."""
    candidates = list(candidates)
    lowered = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(wrong.lower(), lowered, n=1, cutoff=0.5)
    return f"; did you mean {lowered[close[0]]!r}?" if close else ""
