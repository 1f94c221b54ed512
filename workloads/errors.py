"""The error type for bad user input, reported in one line."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad user input. The message is one line: what is wrong, what was given, what is allowed.

    Only this type (and an `OSError` while opening files named by the user) is reported as bad input. Any other
    exception is a bug in the program and is shown with its traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """Returns what IPython shows of it, in place of a traceback: one line, as on the command line."""
        return [f"error: {self}"]


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Returns " (did you mean ...?)" with the closest known word; empty if none is close."""
    words = {word.lower(): word for word in known}
    near = difflib.get_close_matches(given.lower(), words, n=1, cutoff=0.7)
    return f" (did you mean {words[near[0]]!r}?)" if near else ""
