"""The program: ``lcprune`` and ``python -m lcprune``."""

import _signal  # type: ignore[import-not-found]  # `signal` itself imports more
import sys


def main() -> int:
    """The command line; before anything more is imported, Ctrl-C ends it without a word."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from lcprune.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
