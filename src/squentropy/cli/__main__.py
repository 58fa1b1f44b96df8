"""`python -m squentropy.cli`, the same as the command `squentropy`."""

from squentropy.cli import main

main()
