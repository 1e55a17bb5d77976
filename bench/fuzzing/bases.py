"""What is whole at first: runs, finished and half finished, and a saved network."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from fuzzing.tries import Ground, Try, erase, run

PRUNE = (
    "prune", "digits_resnet", "--data", "digits", "--weights", "random", "--budget", "macs=50%",
    "--trials", "4", "--recalibrate-images", "20", "--fitness-images", "20", "--search-dtype",
    "float32", "--train-dtype", "float32", "--batch-size", "512", "--device", "cpu",
)  # fmt: skip
TRAIN = (
    "train", "digits_resnet", "--data", "digits", "--train-dtype", "float32", "--batch-size", "512",
    "--device", "cpu",
)  # fmt: skip


class Bases:
    """Directories of runs, made once: ``finished``, ``searching``, ``training``, ``trained``,
    ``base``, by a process that was killed there; ``saved`` is what ``lp.save`` wrote."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        self._ground = ground
        self.folder = folder.resolve()
        self.folder.mkdir(exist_ok=True)

    def run(self, name: str) -> Path:
        """The directory of that run."""
        path = self.folder / name
        if not path.exists():
            _MAKERS[name](self, path)
            assert path.exists(), name
        return path

    def whole(self, arguments: Sequence[str], path: Path) -> None:
        self._ground.fresh()
        made = self._ground.sandbox / "run"
        ended = run(Try("a base", (*arguments, "--out", str(made))), self._ground, 120)
        if ended.code:
            raise RuntimeError(f"the base {path.name} fails: {ended.err}")
        shutil.copytree(made, path)

    def killed(self, arguments: Sequence[str], path: Path, there: Callable[[Path], bool]) -> None:
        """A run that is killed as soon as ``there`` says so of its directory."""
        made = self._ground.fresh() / "run"
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            try:
                from fuzzing.tries import _child

                _child(Try("a base", (*arguments, "--out", str(made))), self._ground)
            finally:
                os._exit(97)
        limit = time.monotonic() + 120
        while not there(made) and time.monotonic() < limit:
            time.sleep(0.005)
        os.killpg(child, 9)
        os.waitpid(child, 0)
        assert not (made / "summary.json").exists(), path.name
        shutil.copytree(made, path)

    def saved(self, path: Path) -> None:
        import torch

        import lcprune as lp
        from lcprune.models import build

        model = build("digits_resnet", classes=10, input_shape=(1, 8, 8)).eval()
        images = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        graph = lp.trace(model, images)
        plan = lp.rank(graph, lp.saliency(model, graph, "l2"), lp.Budget(macs=0.5))
        made = path.with_name("making")
        erase(made)
        lp.save(
            lp.slim(model, plan), made, plan=plan, example_input=images, factory="digits_resnet",
            classes=10,
        )  # fmt: skip
        made.rename(path)


def _trials(folder: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{folder / 'search.sqlite'}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT count(*) FROM trials").fetchone()[0])
    except sqlite3.Error:
        return 0


_MAKERS: dict[str, Callable[[Bases, Path], None]] = {
    "finished": lambda b, p: b.whole((*PRUNE, "--finetune-epochs", "1"), p),
    "searching": lambda b, p: b.killed(
        (*PRUNE, "--finetune-epochs", "1", "--trials", "40"), p, lambda f: _trials(f) >= 3
    ),
    "training": lambda b, p: b.killed(
        (*PRUNE, "--finetune-epochs", "3"), p, lambda f: (f / "checkpoint.pt").exists()
    ),
    "trained": lambda b, p: b.whole((*TRAIN, "--epochs", "1"), p),
    "base": lambda b, p: b.killed(
        (*TRAIN, "--epochs", "4"), p, lambda f: (f / "checkpoint.pt").exists()
    ),
    "saved": lambda b, p: b.saved(p),
}
