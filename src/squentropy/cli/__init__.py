"""The commands of `squentropy`, thin over the library."""


def main() -> None:
    """The console script; imported late, so that the package costs nothing to import."""
    from squentropy.cli.app import main as run

    run()
