"""Errors for people: what a user got wrong, said in one line."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What was given cannot be used; the message is one line: what is wrong, what was given, what is allowed.

    Only this type (and an `OSError` while files named by the user are opened) is reported as bad input. Any other
    exception is a fault of the program and is shown with its traceback.
    """


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Returns a question that names the nearest known word, to be put behind the given one; empty if none is near."""
    words = {word.lower(): word for word in known}
    near = difflib.get_close_matches(given.lower(), words, n=1, cutoff=0.7)
    return f" (did you mean {words[near[0]]!r}?)" if near else ""
