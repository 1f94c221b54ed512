"""Errors for people: what a user got wrong, said in one line."""


class InputError(ValueError):
    """What was given cannot be used; the message is one line: what is wrong, what was given, what is allowed.

    Only this type (and an `OSError` while files named by the user are opened) is reported as bad input. Any other
    exception is a fault of the program and is shown with its traceback.
    """
