"""The end of a run: the hashes of what it wrote, and the file that means done."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lcprune._files import read_whole, sha256_of, write_text
from lcprune.artifact import _layout as layout
from lcprune.artifact._record import read_run, update_run
from lcprune.errors import InputError, RunError

_KEY = "results_sha256"
_RESULTS = (layout.PLAN, layout.WEIGHTS, layout.BUFFERS, layout.ARTIFACT)


def finish(directory: Path, summary: str) -> None:
    """Note the hashes of a run's results in ``run.json``, and write ``summary.json`` last.

    A directory without a run gets the summary alone. ``RunError`` where it can't be written.
    """
    if (directory / layout.RUN).exists():
        hashes = {
            name: sha256_of(directory / name) for name in _RESULTS if (directory / name).is_file()
        }
        hashes[layout.SUMMARY] = hashlib.sha256(summary.encode()).hexdigest()
        update_run(directory, read_run(directory), **{_KEY: hashes})
    write_text(directory / layout.SUMMARY, summary)


def check_results(directory: Path) -> None:
    """``RunError`` unless the results of a finished run are the files that it wrote."""
    for name, sha256 in dict(read_run(directory).state.get(_KEY, {})).items():
        path = directory / name
        try:
            content = read_whole(path, RunError)
        except RunError as error:
            raise RunError(f"{error}{_mend(directory)}") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise RunError(
                f"{path} is not the file that the run wrote: its hash differs{_mend(directory)}"
            )


def read_final(directory: Path) -> str:
    """The text of ``summary.json``; ``InputError`` where it is not what the run wrote there."""
    path = directory / layout.SUMMARY
    try:
        content = read_whole(path)
        text = content.decode("utf-8")
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{directory} holds no finished run: {path} can't be read") from error
    if (directory / layout.RUN).exists():
        noted = read_run(directory).state.get(_KEY, {}).get(layout.SUMMARY)
        if noted is not None and noted != hashlib.sha256(content).hexdigest():
            raise InputError(f"{path} is damaged: its hash differs{_mend(directory)}")
    return text


def _mend(directory: Path) -> str:
    return f" (remove {directory / layout.SUMMARY}, and --resume writes it again)"
