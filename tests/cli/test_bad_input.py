"""What the user gave can't be used: one line on stderr, exit code 2, nothing written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image

from lcprune.cli import main
from lcprune.runs import RUN

from .conftest import Prune

Change = Callable[[Path, Path], dict[str, Any]]
"""Takes a folder to write to and good weights, and gives the options that are bad."""


def changed_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def write(folder: Path, weights: Path) -> dict[str, Any]:
        state = safetensors.torch.load_file(weights)
        change(state)
        safetensors.torch.save_file(state, folder / "bad.safetensors")
        return {"weights": str(folder / "bad.safetensors")}

    return write


def truncated_weights(folder: Path, weights: Path) -> dict[str, Any]:
    (folder / "bad.safetensors").write_bytes(weights.read_bytes()[:1000])
    return {"weights": str(folder / "bad.safetensors")}


def pickled_weights(folder: Path, weights: Path) -> dict[str, Any]:
    torch.save({"model": Path}, folder / "bad.pt")
    return {"weights": str(folder / "bad.pt")}


def text_weights(folder: Path, weights: Path) -> dict[str, Any]:
    (folder / "bad.pt").write_text("root:x:0:0:root:/root:/bin/bash")
    return {"weights": str(folder / "bad.pt")}


def image_folder(folder: Path, classes: int, images: int = 3) -> Path:
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        for label in range(classes):
            place = folder / split / f"class{label}"
            place.mkdir()
            for number in range(images):
                Image.new("L", (8, 8), 40 * label + number).save(place / f"{number}.png")
    return folder


def folder_of(classes: int) -> Change:
    def write(folder: Path, weights: Path) -> dict[str, Any]:
        root = image_folder(folder / "images", classes)
        return {"data": f"imagefolder:{root}", "weights": "random"}

    return write


def truncated_image(folder: Path, weights: Path) -> dict[str, Any]:
    root = image_folder(folder / "images", 2)
    victim = root / "train" / "class1" / "1.png"
    victim.write_bytes(victim.read_bytes()[:40])
    return {"data": f"imagefolder:{root}", "weights": "random"}


def other_logits(folder: Path, weights: Path) -> dict[str, Any]:
    (folder / "net.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 7, 3),\n"
        "                         nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    return {"model": f"{folder / 'net.py'}:make", "weights": "random"}


def just(**options: Any) -> Change:
    return lambda folder, weights: options


CASES: dict[str, tuple[Change, str]] = {
    "missing weights": (just(weights="nowhere.safetensors"), "nowhere.safetensors"),
    "truncated weights": (truncated_weights, "bad.safetensors"),
    "weights that are code": (pickled_weights, "bad.pt"),
    "weights that are text": (text_weights, "can't be read as weights"),
    "no default weights": (just(weights="default"), "default"),
    "a key too few": (changed_weights(lambda s: s.pop("layer1.0.conv1.weight")), "layer1.0.conv1"),
    "a key too many": (changed_weights(lambda s: s.update(odd=torch.ones(1))), "odd"),
    "another shape": (
        changed_weights(lambda s: s.update({"linear.weight": torch.ones(3, 64)})),
        "linear.weight",
    ),
    "NaN in the weights": (
        changed_weights(lambda s: s["layer2.0.bn1.weight"].fill_(float("nan"))),
        "layer2.0.bn1.weight",
    ),
    "unknown model": (just(model="cifar_resnet57"), "cifar_resnet56"),
    "unknown torchvision model": (just(model="torchvision/resnet51"), "torchvision/resnet"),
    "unknown data": (just(data="digit"), "digits"),
    "data without a folder": (just(data="cifar10:/nowhere"), "/nowhere"),
    "unknown criterion": (just(criterion="l3"), "l2"),
    "unknown reduction": (just(reduction="median"), "mean"),
    "unknown compensation": (just(compensation="cubic"), "additive"),
    "unknown strategy": (just(strategy="guess"), "evolution"),
    "unknown device": (just(device="abacus"), "abacus"),
    "an empty folder": (folder_of(0), "images"),
    "a folder of one class": (folder_of(1), "class"),
    "a truncated image": (truncated_image, "1.png"),
    "other logits": (other_logits, "(1, 10)"),
    "unknown resource": (just(budget=["watts=50%"]), "macs"),
    "a budget of 0 %": (just(budget=["macs=0%"]), "macs=0%"),
    "a budget of 100 %": (just(budget=["macs=100%"]), "macs=100%"),
    "a budget of 250 %": (just(budget=["macs=250%"]), "macs=250%"),
    "a budget of -1": (just(budget=["macs=-1"]), "macs=-1"),
    "a budget that is no number": (just(budget=["macs=abc"]), "macs=abc"),
    "a budget without a bound": (just(budget=["macs"]), "macs=50%"),
    "two budgets for one resource": (just(budget=["macs=50%", "macs=40%"]), "two bounds"),
    "a budget above the original": (just(budget=["params=900M"]), "nothing to prune"),
    "a budget below the floors": (just(budget=["macs=0.1%"]), "least possible"),
    "no budget": (just(budget=[]), "--budget"),
    "no data": (just(data=None), "--data"),
    "no trials": (just(trials=0), "trials"),
    "an infinite number": (just(learning_rate="inf"), "expected a finite number"),
    "no number": (just(trials="many"), "trials"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(
    tmp_path: Path,
    weights: Path,
    prune: Prune,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    change, message = CASES[name]
    options = change(tmp_path, weights)
    before = sorted(tmp_path.rglob("*"))
    assert prune(tmp_path / "out", **options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    assert message in error
    assert [p for p in sorted(tmp_path.rglob("*")) if "__pycache__" not in str(p)] == before


@pytest.mark.parametrize("place", ["file/below", "file"])
def test_an_output_that_cannot_be_written(
    tmp_path: Path, prune: Prune, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "file").write_text("the user's")
    assert prune(tmp_path / place) == 2
    error = capsys.readouterr().err
    assert "Not a directory" in error
    assert error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "the user's"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a place where nobody may write")
def test_a_read_only_output(prune: Prune, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune(Path("/proc/lcprune")) == 2
    error = capsys.readouterr().err
    assert "can't write /proc/lcprune" in error
    assert error.count("\n") == 1


def test_a_directory_without_permission(
    tmp_path: Path,
    prune: Prune,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The superuser may write anywhere, so the answer of the system is given here.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert prune(tmp_path / "out") == 2
    assert "no permission" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_that_holds_a_finished_run(
    finished: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    assert prune(finished) == 2
    error = capsys.readouterr().err
    assert "--force" in error
    assert error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


@pytest.mark.parametrize("flags", [(), ("--force",), ("--resume",)])
def test_an_output_that_holds_something_else(
    tmp_path: Path, prune: Prune, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    (tmp_path / "thesis.tex").write_text("the user's")
    assert prune(tmp_path, *flags) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_bad_budget_under_force_leaves_the_earlier_run(
    tmp_path: Path, finished: Path, prune: Prune
) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    assert prune(finished, "--force", budget=["macs=abc"]) == 2
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_an_unknown_key_in_a_file(
    tmp_path: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text("trails = 3\n")
    assert prune(tmp_path / "out", "--config", str(tmp_path / "run.toml")) == 2
    assert "trials" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["prune"],
        ["prune", "m", "--frobnicate"],
        ["frobnicate"],
        ["inspect"],
        ["inspect", "cifar_resnet57"],
        ["inspect", "digits_resnet", "--input", "3"],
        ["inspect", "digits_resnet", "--input", "1x0x8x8"],
        ["inspect", "digits_resnet", "--input", "1x1x9999999x9999999"],
        ["inspect", "digits_resnet", "--input", "1x1x8xa"],
        ["evaluate", "/nowhere", "--data", "digits"],
        ["demo", "--out", "/proc/lcprune"],
    ],
)
def test_bad_command_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_nothing_bad_happens_to_good_input(tmp_path: Path, prune: Prune) -> None:
    """The options that all of the above change are fine as they are."""
    assert prune(tmp_path / "out", trials=1, finetune_epochs=0) == 0
    assert (tmp_path / "out" / RUN).exists()
