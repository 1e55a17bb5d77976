"""The YOLO example: a framework's own network, loss, trainer, validator and exporter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lcprune as lp
from examples.loading import FOLDER, load_example
from oracle import check, randomise

# Found, not imported: importing it looks for hosts and writes into the home directory.
MISSING = [name for name in ("ultralytics", "onnx", "onnxruntime") if find_spec(name) is None]
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.xdist_group("yolo"),
    pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} missing: pip install 'lcprune[yolo]'"),
]

GUARD = """
import runpy, sys
def note(event, arguments):
    asks = event in ("socket.connect", "socket.getaddrinfo", "socket.sendto")
    fetches = event == "subprocess.Popen" and {{"curl", "install"}} & {{*map(str, arguments[1])}}
    if asks or fetches:
        with open({log!r}, "a") as file:
            file.write(f"{{event}} {{arguments}}\\n")
sys.addaudithook(note)
sys.argv = [{script!r}, *{arguments!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


@dataclass(frozen=True)
class _Run:
    shown: str
    summary: dict[str, Any]
    out: Path
    home: Path
    log: Path


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> _Run:
    """The example's quick run, alone in a home of its own, every try to reach others noted."""
    folder = tmp_path_factory.mktemp("yolo")
    home, log, out = folder / "home", folder / "log", folder / "out"
    home.mkdir()
    arguments = ["--quick", "--budget", "0.4", "--out", str(out), "--json", str(folder / "json")]
    guard = GUARD.format(log=str(log), script=str(FOLDER / "yolo.py"), arguments=arguments)
    # What is switched off where tests or CI run shall be off without them, too.
    switches = ("PYTEST_", "YOLO_", "ORT_", "XDG_", "MPL")
    around = {
        key: value
        for key, value in os.environ.items()
        if key != "CI" and not key.startswith(switches)
    }
    done = subprocess.run(
        [sys.executable, "-c", guard],
        cwd=home,
        env=around | {"HOME": str(home), "COLUMNS": "150"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((folder / "json").read_text(encoding="utf-8"))
    return _Run(done.stdout, summary, out, home, log)


def test_nothing_leaves_the_machine_and_nothing_is_left_at_home(quick: _Run) -> None:
    assert not quick.log.exists(), quick.log.read_text(encoding="utf-8")
    assert list(quick.home.iterdir()) == []


def test_the_summary_is_what_the_files_hold(quick: _Run) -> None:
    whole, cut, trained = (quick.summary[stage] for stage in ("whole", "cut", "trained"))
    assert cut["macs"] == trained["macs"] <= 0.4 * whole["macs"]
    plan = json.loads((quick.out / "pruned" / "plan.json").read_text(encoding="utf-8"))
    assert cut["params"] == plan["cost"]["params"] < whole["params"]
    assert f"{cut['macs']:,}" in quick.shown
    assert all(0 <= stage["map50_95"] <= stage["map50"] <= 100 for stage in (whole, cut, trained))


def test_saved_and_exported_networks_are_the_trained_one(quick: _Run) -> None:
    assert quick.summary["verify_error"] <= 1e-9
    assert quick.summary["load_error"] == 0
    assert quick.summary["onnx_error"] <= 1e-3
    whole, pruned = (quick.out / f"{name}.onnx" for name in ("whole", "pruned"))
    assert pruned.stat().st_size < 0.6 * whole.stat().st_size


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    before = dict(os.environ)
    yield load_example("yolo")
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml"])
def test_every_filter_but_boxes_and_scores_can_go(example: ModuleType, name: str) -> None:
    heads = example.Heads(randomise(example.build(name), 0))
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    graph = lp.trace(heads, images)
    last = {f"cv{part}.{level}.2.weight" for part in (2, 3) for level in range(3)}
    assert {u.tensor.rpartition("model.")[2].split(".", 1)[1] for u in graph.untouched} in (
        last,
        last | {f"one2one_{tensor}" for tensor in last},
    )
    seen = check(heads, images, 0, graph)
    assert seen.error <= 1e-9
    assert seen.effect > 1e-3


def test_a_file_of_another_network_would_be_seen(example: ModuleType, tmp_path: Path) -> None:
    one, other = (randomise(example.build("yolo11n.yaml"), seed) for seed in (0, 1))
    image = torch.rand(1, 3, example.SIZE, example.SIZE)
    found = example.export(one, tmp_path / "one.onnx")(image)
    assert example.difference(found, example.predictions(one, image)) < 1e-4
    assert example.difference(found, example.predictions(other, image)) > 1e-3


def test_scenes_follow_their_seed_and_boxes_hold_the_shapes(
    example: ModuleType, tmp_path: Path
) -> None:
    counts = {"train": 30, "val": 2, "test": 2}
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        example.scenes(tmp_path / name, counts, seed)
    files = {
        name: [
            (path.name, path.read_bytes())
            for folder in ("images", "labels")
            for path in sorted((tmp_path / name / folder / "train").iterdir())
        ]
        for name in ("one", "again", "other")
    }
    assert files["one"] == files["again"] != files["other"]
    kinds = set()
    for number in range(counts["train"]):
        path = tmp_path / "one" / "labels" / "train" / f"{number}.txt"
        labels = np.loadtxt(path, ndmin=2)
        kinds |= set(labels[:, 0].astype(int))
        assert (labels[:, 1:3] - labels[:, 3:] / 2).min() >= -1e-4
        assert (labels[:, 1:3] + labels[:, 3:] / 2).max() <= 1 + 1e-4
        # The last shape is hidden by none, and all of its pixels have the colour of its middle.
        x, y, width, height = labels[-1, 1:] * example.SIZE
        with Image.open(tmp_path / "one" / "images" / "train" / f"{number}.png") as file:
            image = np.asarray(file)
        rows, columns = np.nonzero((image == image[round(y), round(x)]).all(2))
        seen = (columns.min(), rows.min(), columns.max(), rows.max())
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        assert np.abs(np.subtract(seen, box)).max() <= 2
    assert kinds == set(range(len(example.KINDS)))
