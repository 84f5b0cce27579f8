"""`python -m habitlab` is the command `habitlab`."""

from habitlab.cli import main

main()
