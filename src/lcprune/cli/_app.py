"""The program: a command line in, an exit code out, and every error in one line.

PyTorch takes a second or more to import, so it is imported after the command line is understood,
and everything is caught from the first line on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lcprune.cli._signals import PipeClosedError, leaving_at_once

DEBUG = "--debug"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name) and return its exit code.

    0: done. 1: a check of our own failed. 2: the input can't be used, or anything else went wrong,
    told in one line on stderr. 130: interrupted; 143, 129: ended by SIGTERM, SIGHUP; 141: nobody
    reads stdout.
    """
    program = arguments is None
    try:
        with leaving_at_once(program=program):
            from lcprune.cli import _stderr

            typed = list(sys.argv[1:] if arguments is None else arguments)
            debug = DEBUG in typed
            try:
                with _stderr.only_lines(debug=debug, program=program):
                    return _run([text for text in typed if text != DEBUG])
            except BaseException as error:
                return _stderr.told(error, debug=debug)
    except KeyboardInterrupt:  # of a host's own handler, or while an error is told
        return 130


def _run(typed: Sequence[str]) -> int:
    from lcprune.cli import _parser

    asked = _parser.parse(typed or ["--help"])
    if asked is None:
        return _flushed(0)
    from lcprune.cli import _commands

    return _flushed(_commands.run(asked))


def _flushed(code: int) -> int:
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise PipeClosedError from None
    return code
