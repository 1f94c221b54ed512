"""The error type for bad user input, reported in one line."""


class InputError(ValueError):
    """Bad user input. The message is one line: what is wrong, what was given, what is allowed.

    Only this type (and an `OSError` while opening files named by the user) is reported as bad input. Any other
    exception is a bug in the program and is shown with its traceback.
    """
