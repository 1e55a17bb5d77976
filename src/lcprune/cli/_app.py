"""The program: a command line in, an exit code out, and every error in one line.

PyTorch takes a second or more to import, so it is imported after the command line is understood,
and everything is caught from the first line on.
"""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Sequence

from lcprune.cli._signals import PIPE_CLOSED, PipeClosedError, leaving_at_once, tell
from lcprune.errors import InputError, LcpruneError

_FAILED, _BAD_INPUT, _INTERRUPTED = 1, 2, 130
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name) and return its exit code.

    0: done. 1: a check of our own failed. 2: the input can't be used, told in one line on
    stderr. 130: interrupted; 143, 129: ended by SIGTERM, SIGHUP; 141: nobody reads stdout.
    """
    try:
        with leaving_at_once(program=arguments is None):
            typed = list(sys.argv[1:] if arguments is None else arguments)
            from lcprune.cli import _parser

            asked = _parser.parse(typed or ["--help"])
            if asked is None:
                return 0
            from lcprune.cli import _commands
        code = _commands.run(asked)
        _flush()
    except InputError as error:
        return _fail(str(error), _BAD_INPUT)
    except LcpruneError as error:
        return _fail(str(error), _FAILED)
    except PipeClosedError:
        sys.stdout = io.StringIO()  # else Python tries once more at its end
        return PIPE_CLOSED
    except OSError as error:  # those of a run's files have a class of their own: this is stdout
        if error.errno not in _FULL:
            raise
        sys.stdout = io.StringIO()
        return _fail(f"can't print to stdout: {error.strerror}", _BAD_INPUT)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


def _fail(message: str, code: int) -> int:
    tell(f"error: {' '.join(message.split())}")
    return code


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise PipeClosedError from None
