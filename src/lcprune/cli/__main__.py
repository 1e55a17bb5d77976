"""``python -m lcprune.cli``: the command line without an installed script."""

import sys

from lcprune.cli import main

sys.exit(main())
