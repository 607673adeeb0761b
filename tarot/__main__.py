"""`python -m tarot`: the command, where its script is not on the path."""

import sys

from tarot.cli import main

sys.exit(main())
