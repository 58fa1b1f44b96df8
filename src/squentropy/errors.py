"""Errors that a person can act on."""


class SquentropyError(Exception):
    """A mistake in the input or the machine: one line that names the thing, the place and the fix.

    The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 1


class ParameterError(SquentropyError):
    """A parameter that is missing, misspelt, of the wrong type or out of range."""

    exit_code = 2
