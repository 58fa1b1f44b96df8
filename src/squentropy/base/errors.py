"""Errors that a person can act on, and what a command exits with."""

OK = 0
FAILED = 1
"""A file or folder is missing, damaged or in the way, or something cannot be done here."""
USAGE = 2
"""The command line makes no sense, or a parameter is missing, misspelt or out of range."""
BUG = 70
"""An error that nobody foresaw (EX_SOFTWARE of sysexits.h)."""
INTERRUPTED = 130
"""Ctrl-C: 128 and SIGINT."""
CLOSED = 141
"""The reader of the output has gone: 128 and SIGPIPE."""


class SquentropyError(Exception):
    """A mistake in the input or the machine: one line that names the thing, the place and the fix.

    The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = FAILED


class ParameterError(SquentropyError):
    """A parameter that is missing, misspelt, of the wrong type or out of range."""

    exit_code = USAGE


class Ended(SquentropyError):
    """The work has ended with an exit code; without a message if another process has said why."""

    def __init__(self, exit_code: int, message: str = ""):
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(Ended):
    """A signal ended the work once its state was saved; the same command goes on from there."""

    def __init__(self, number: int, message: str = ""):
        super().__init__(128 + number, message)
