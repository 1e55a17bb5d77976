"""``python -m lcprune``: the command line, and what a launcher of several processes starts."""

import sys

from lcprune.cli import main

sys.exit(main())
