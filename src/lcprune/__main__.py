"""The program: ``lcprune`` and ``python -m lcprune``."""

import signal
import sys


def main() -> int:
    """The command line; before anything more is imported, Ctrl-C ends it without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lcprune.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
