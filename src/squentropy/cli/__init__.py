"""The commands of `squentropy`, thin over the library."""

import sys


def main() -> None:
    """The console script; imported late, so that the package costs nothing to import."""
    try:
        from squentropy.cli.app import main as run
    except ModuleNotFoundError as error:  # the library alone is installed
        from squentropy.base import errors, installed

        print(f"squentropy: {installed.missing(error.name or 'a package')}", file=sys.stderr)
        sys.exit(errors.FAILED)
    run()
