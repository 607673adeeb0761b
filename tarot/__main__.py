"""`python -m tarot`: the command, where its script is not on the path."""

from tarot.cli import main

main()
