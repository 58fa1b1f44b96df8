"""Errors that a user can act on, and the exit codes of commands."""

OK = 0
FAILED = 1
"""A file or folder is missing, damaged or in the way, or an operation is not possible here."""
USAGE = 2
"""The command line is invalid, or a parameter is missing, misspelt or out of range."""
BUG = 70
"""An unexpected error (EX_SOFTWARE of sysexits.h)."""
LOST = 75
"""Another process of the run was lost; the same command resumes (EX_TEMPFAIL of sysexits.h)."""
INTERRUPTED = 130
"""Ctrl-C: 128 + SIGINT."""
CLOSED = 141
"""The reader of the output has closed it: 128 + SIGPIPE."""


class SquentropyError(Exception):
    """A problem with the input or the machine, as one line: what, where and how to fix it.

    The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = FAILED


class ParameterError(SquentropyError):
    """A parameter is missing, misspelt, of the wrong type or out of range."""

    exit_code = USAGE


class LostProcess(SquentropyError):
    """Another process of the run has ended, so this one cannot continue."""

    exit_code = LOST


class Ended(SquentropyError):
    """The work ended with an exit code; no message if another process has reported the reason."""

    def __init__(self, exit_code: int, message: str = ""):
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(Ended):
    """A signal ended the work after its state was saved; the same command resumes from there."""

    def __init__(self, number: int, message: str = ""):
        super().__init__(128 + number, message)
