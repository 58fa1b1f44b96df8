"""`python -m squentropy.cli`, as the command `squentropy`."""

from squentropy.cli import main

main()
