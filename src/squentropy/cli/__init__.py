"""The commands of `squentropy`, thin over the library."""

import sys


def main() -> None:
    """The console script; imports the commands late, so importing the package is cheap."""
    try:
        from squentropy.cli.app import main as run
    except ModuleNotFoundError as error:  # only the library is installed
        from squentropy.base import errors, installed

        print(f"squentropy: {installed.missing(error.name or 'a package')}", file=sys.stderr)
        sys.exit(errors.FAILED)
    run()
