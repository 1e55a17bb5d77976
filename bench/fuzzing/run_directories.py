"""Run directories in which something is lost, damaged, planted, or right by its checksum only."""

# ruff: noqa: E501 (lists of values are read across)

from __future__ import annotations

import contextlib
import io
import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

from fuzzing.bases import PRUNE, TRAIN, Bases
from fuzzing.hostile import bytes_of, replace_by
from fuzzing.sealed import (
    change_journal,
    changed_place,
    read_json,
    reseal,
    seal_bytes,
    seal_json,
    unsealed,
)
from fuzzing.tries import Ground, Try

COMMANDS = {"finished": "prune", "searching": "prune", "training": "prune", "trained": "train",
            "base": "train"}  # fmt: skip
NAMES = (
    "run.json", "summary.json", "artifact.json", "plan.json", "graph.json", "model.safetensors",
    "buffers.safetensors", "checkpoint.pt", "base.safetensors", "base-checkpoint.pt", "search.sqlite",
    "search.sqlite-wal", "search.sqlite-shm", "search.sqlite-journal", ".partial-run.lock",
    ".partial-search.sqlite.lock", "model.safetensors.new", "plan.json.new", "artifact.json.new",
    ".partial-1-run.json", ".partial-1-x/y", "report.html", ".checkpoint.pt.part", "x",
)  # fmt: skip


ANEW = {"prune": (*PRUNE, "--finetune-epochs", "1"), "train": (*TRAIN, "--epochs", "1")}


class Mark:
    """Unpickled, it leaves the mark that shows that code ran."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self._path, "unpickled"))


class RunDirectories:
    """The surface."""

    def __init__(self, ground: Ground, seed: int, bases: Bases) -> None:
        self._ground = ground
        self._bases = {name: bases.run(name) for name in COMMANDS}
        self._ways = (
            self._replaced, self._replaced, self._damaged, self._damaged, self._planted,
            self._planted, self._record, self._record, self._record, self._sealed, self._sealed,
            self._journal, self._journal, self._checkpoint, self._factory, self._mixed, self._swapped,
        )  # fmt: skip

    def make(self, number: int, chance: random.Random, folder: Path) -> Try:
        """The try of this number."""
        base = chance.choice(list(COMMANDS))
        run = folder / "run"
        shutil.copytree(self._bases[base], run)
        way = self._ways[number % len(self._ways)]
        what = way(run, chance)
        for _ in range(chance.random() < 0.1):
            what += f"; {chance.choice(self._ways)(run, chance)}"
        command = COMMANDS[base]
        kind = chance.random()
        if kind < 0.7:
            arguments = [command, "--out", "run", "--resume"]
        elif kind < 0.8:
            arguments = ["evaluate", "run", "--data", "digits"]
        elif kind < 0.86:
            arguments = [*ANEW[command], "--out", "run", "--force"]
        elif kind < 0.9:
            arguments = [command, "digits_resnet", "--data", "digits", "--out", "run"]
        elif kind < 0.94:
            other = chance.choice(("demo", "train" if command == "prune" else "prune"))
            arguments = [other, "--out", "run", "--resume"]
        else:
            arguments = [command, "--out", "run", "--resume", *chance.choice(
                (["--seed", "5"], ["--trials", "6"], ["--device", "cuda"], ["--config", "run/run.json"])
            )]  # fmt: skip
        # A finished run may be made anew where only its leftovers were changed.
        return Try(f"{base}: {what}; {' '.join(arguments)}", tuple(arguments))

    def _file(self, run: Path, chance: random.Random) -> Path:
        return chance.choice(sorted(path for path in run.iterdir()))

    def _replaced(self, run: Path, chance: random.Random) -> str:
        path = self._file(run, chance)
        return f"{path.name}: {replace_by(chance, path, self._ground.precious)}"

    def _damaged(self, run: Path, chance: random.Random) -> str:
        path = self._file(run, chance)
        if not path.is_file() or path.stat().st_size > 2**24:
            return "nothing"
        how, content = bytes_of(chance, path.read_bytes())
        path.write_bytes(content)
        return f"{path.name}: {how}"

    def _planted(self, run: Path, chance: random.Random) -> str:
        path = run / chance.choice(NAMES)
        if "/" in str(path.relative_to(run)):
            path.parent.mkdir(exist_ok=True)
        return f"{path.name} planted: {replace_by(chance, path, self._ground.precious)}"

    def _record(self, run: Path, chance: random.Random) -> str:
        return self._json(run, "run.json", chance)

    def _sealed(self, run: Path, chance: random.Random) -> str:
        names = [n for n in ("summary.json", "artifact.json", "plan.json", "graph.json")
                 if (run / n).is_file()]  # fmt: skip
        return self._json(run, chance.choice(names or ["run.json"]), chance)

    def _json(self, run: Path, name: str, chance: random.Random) -> str:
        path = run / name
        try:
            values = read_json(path)
        except (OSError, ValueError):
            return "nothing"
        sealed = "checksum" in values
        what = changed_place(values, chance)
        seal_json(path, values)
        if not sealed:
            import json

            values.pop("checksum", None)
            path.write_text(json.dumps(values).replace('"\\u0000deep"', "[" * 900 + "]" * 900))
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError, RecursionError):
            reseal(run)
        return f"{name}: {what}, sealed"

    def _journal(self, run: Path, chance: random.Random) -> str:
        path = run / "search.sqlite"
        if not path.is_file():
            return self._record(run, chance)
        import sqlite3

        try:
            what = change_journal(path, chance)
            if chance.random() < 0.5:
                (run / "summary.json").unlink(missing_ok=True)
        except sqlite3.Error as error:
            return f"journal: {error}"
        return f"journal: {what}"

    def _checkpoint(self, run: Path, chance: random.Random) -> str:
        import torch

        (run / "summary.json").unlink(missing_ok=True)
        path = run / "checkpoint.pt"
        kind = chance.choice(("pickle", "random", "a list", "other keys", "wrong types", "changed"))
        buffer = io.BytesIO()
        if kind == "pickle":
            buffer.write(pickle.dumps({"model": Mark(self._ground.mark)}))
        elif kind == "random":
            buffer.write(chance.randbytes(chance.choice((0, 1, 1000))))
        elif kind == "a list":
            torch.save([1, 2], buffer)
        elif kind == "other keys":
            torch.save({"x": torch.ones(2)}, buffer)
        else:
            try:
                values = torch.load(io.BytesIO(unsealed(path)), weights_only=True)
            except Exception:  # there is none
                values = {"epoch": 1, "model": {}}
            keys = [key for key in values if isinstance(key, str)] or ["x"]
            key = chance.choice(keys)
            values[key] = chance.choice((None, -1, 10**9, "x", [], {}, torch.ones(2), float("nan"),
                                         {"x": 1}, torch.full((2,), float("nan"))))  # fmt: skip
            kind = f"{key} is {str(values[key])[:30]!r}"
            torch.save(values, buffer)
        if path.is_symlink() or path.is_file():
            path.unlink()
        if not path.exists():
            seal_bytes(path, buffer.getvalue())
        return f"checkpoint: {kind}, sealed"

    def _factory(self, run: Path, chance: random.Random) -> str:
        """A record that names code of its own."""
        try:
            values = read_json(run / "run.json")
            configuration = values["configuration"]
            key = chance.choice(("model", "data", "both"))
            name = chance.choice(("evil.py", str(self._ground.canary / "evil.py"), "evil", "./evil.py",
                                  "run/evil.py", "../canary/evil.py"))  # fmt: skip
            for one in ("model", "data") if key == "both" else (key,):
                configuration[one] = f"{name}:make"
        except (OSError, ValueError, KeyError, TypeError):
            return "nothing"
        for where in (run.parent, run):
            (where / "evil.py").write_text(self._ground.evil())
        seal_json(run / "run.json", values)
        what = f"{key} of run.json is {Path(name).name}:make, sealed"
        if chance.random() < 0.5 and (run / "artifact.json").is_file():
            try:
                described = read_json(run / "artifact.json")
                described["factory"] = f"{name}:make"
                seal_json(run / "artifact.json", described)
                reseal(run)
            except (OSError, ValueError, TypeError, AttributeError):
                pass
        if chance.random() < 0.5:
            (run / "summary.json").unlink(missing_ok=True)
        return what

    def _mixed(self, run: Path, chance: random.Random) -> str:
        """Files of another run."""
        other = self._bases[chance.choice(list(COMMANDS))]
        path = chance.choice(sorted(other.iterdir()))
        if (run / path.name).exists() and not (run / path.name).is_file():
            return "nothing"
        (run / path.name).unlink(missing_ok=True)
        shutil.copy(path, run / path.name)
        if chance.random() < 0.5:
            with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
                reseal(run)
        return f"{path.name} of the run {other.name}"

    def _swapped(self, run: Path, chance: random.Random) -> str:
        """Two files have each other's name; or the folder itself is something else."""
        kind = chance.random()
        if kind < 0.5:
            one, other = chance.sample(sorted(run.iterdir()), 2)
            spare = run / "spare"
            one.rename(spare)
            other.rename(one)
            spare.rename(other)
            return f"{one.name} and {other.name} swapped"
        if kind < 0.7:
            moved = run.with_name("moved")
            run.rename(moved)
            run.symlink_to(moved)
            return "the directory is a link to the run"
        if kind < 0.8:
            run.rename(run.with_name("moved"))
            run.write_text("x")
            return "the directory is a file"
        if kind < 0.9:
            run.rename(run.with_name("moved"))
            os.mkfifo(run)
            return "the directory is a pipe"
        run.rename(run.with_name("moved"))
        run.symlink_to("run")
        return "the directory is a link to itself"
