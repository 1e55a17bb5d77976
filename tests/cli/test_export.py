"""Exports from the command line, and a saved result on an engine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from digit_runs import Prune
from engines.networks import engine_or_skip
from lcprune.artifact import load
from lcprune.cli import _commands, main
from lcprune.data import load_data
from lcprune.engines import engine_named
from lcprune.errors import VerificationError
from lcprune.graph import quantity
from lcprune.runs import EXPORTED, EXPORTED_INT8
from lcprune.training import evaluate_top1


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def test_a_run_is_exported_and_goes_with_it(
    out: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    path = out / f"{EXPORTED}.pt2"
    assert main(["export", str(out), "--format", "pt2", "--dynamic-batch"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith(f"wrote {path} (")
    assert captured.out.count("\n") == 1
    x = load_data("digits").normalise(load_data("digits").test.pixels[:5])
    [found] = engine_named("pytorch").open(path)(x)
    torch.testing.assert_close(found, load(out)(x).detach(), rtol=1e-4, atol=1e-4)
    # Another run has another network.
    assert prune(out, "--force", trials=1, finetune_epochs=0) == 0
    assert not path.exists()


@pytest.mark.thorough
def test_another_file(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "small.pt2"
    assert main(["export", str(out), "--format", "pt2", "--out", str(path)]) == 0
    assert path.is_file()
    assert not (out / f"{EXPORTED}.pt2").exists()


@pytest.mark.thorough
def test_a_result_on_an_engine(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name for path in out.iterdir()}
    threads = torch.get_num_threads()
    assert main(["evaluate", str(out), "--data", "digits", "--engine", "pytorch"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    data = load_data("digits")
    rows = [[c.strip() for c in line.split("│")[1:3]] for line in captured.out.splitlines()]
    table = {cells[0]: cells[1] for cells in rows if len(cells) == 2}
    top1 = evaluate_top1(load(out), data.test, data)
    assert table["top-1 of 359 test images, % (pytorch, pt2)"] == f"{top1:.2f}"
    for name in ("batch 1, 1 thread", "pytorch, pt2, batch 1, 1 thread"):
        assert float(table[f"least latency, ms ({name})"]) > 0
    assert {path.name for path in out.iterdir()} == before
    assert torch.get_num_threads() == threads


@pytest.mark.thorough
def test_threads_are_those_that_were_asked_for(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(out), "--data", "digits", "--threads", "2"]) == 0
    assert "latency, ms (batch 1, 2 threads)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "OUT", "--format", "tflite"], "format = 'tflite': expected pt2, onnx"),
        (["export", "OUT", "--format", "pt2", "--out", "x.onnx"], "that ends with .pt2"),
        (["export", "nowhere", "--format", "pt2"], "nowhere holds no saved model"),
        (["export", "OUT", "--format", "openvino"], "pip install 'lcprune[openvino]'"),
        (["evaluate", "OUT", "--data", "digits", "--engine", "no"], "engine = 'no': expected"),
        (
            ["evaluate", "OUT", "--data", "digits", "--engine", "onnxruntime"],
            "pip install 'lcprune[onnxruntime]'",
        ),
        (
            ["evaluate", "OUT", "--data", "digits", "--engine", "pytorch", "--device", "cuda"],
            "engines run on the CPU, expected no --device cuda",
        ),
        (["evaluate", "OUT", "--data", "digits", "--threads", "0"], "threads = 0: expected"),
        # What is missing is named first: the folder, then the engine, then the data.
        (["export", "nowhere", "--format", "openvino"], "nowhere holds no saved model"),
        (
            ["evaluate", "nowhere", "--data", "digits", "--engine", "openvino"],
            "nowhere holds no saved model",
        ),
        (
            ["export", "OUT", "--format", "onnx", "--int8", "--data", "digits"],
            "pip install 'lcprune[onnxruntime]'",
        ),
        (
            ["export", "OUT", "--format", "pt2", "--int8", "--data", "digits"],
            "pt2 files are not written in int8, expected one of onnx",
        ),
        (
            ["export", "OUT", "--format", "pt2", "--data", "digits"],
            "only int8 needs images, expected --data together with --int8",
        ),
        (["evaluate", "OUT", "--data", "digits", "--int8"], "expected --engine with --int8"),
        (
            ["evaluate", "OUT", "--data", "digits", "--int8", "--engine", "pytorch"],
            "pt2 files are not written in int8",
        ),
    ],
)
def test_what_can_not_be_done_is_one_line(
    out: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path.name for path in out.iterdir()}
    monkeypatch.chdir(out.parent)
    monkeypatch.setattr("lcprune.engines._engine._is_there", lambda package: False)
    assert main([str(out) if a == "OUT" else a for a in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert {path.name for path in out.iterdir()} == before
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_int8_without_data_is_one_line(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lcprune.engines._engine._is_there", lambda package: True)
    before = {path.name for path in out.iterdir()}
    for extra in ([], ["--format", "openvino"], ["--dynamic-batch"]):
        assert main(["export", str(out), "--int8", *extra]) == 2
        said = "error: int8 needs training images to calibrate on, expected --data DATA\n"
        assert capsys.readouterr().err == said
    # Data of another network.
    (out.parent / "other.py").write_text(
        "import torch\n"
        "from lcprune.data import Data, Images\n"
        "def make():\n"
        "    pixels, labels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1])\n"
        "    images = Images(pixels, labels)\n"
        "    return Data(images, images, ('a', 'b'), (0.0,) * 3, (1.0,) * 3, (3, 8, 8))\n"
    )
    data = f"{out.parent / 'other.py'}:make"
    assert main(["export", str(out), "--int8", "--data", data]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert {path.name for path in out.iterdir()} == before


@pytest.mark.thorough
def test_a_run_in_int8_goes_with_it(
    out: Path,
    prune: Prune,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also its accuracy is that of the file, beside that in float32, and a loss is told."""
    engine_or_skip("onnxruntime", int8=True)
    monkeypatch.setattr(_commands, "LARGEST_DROP", -1000.0)
    assert main(["export", str(out), "--int8", "--data", "digits"]) == 0
    path = out / f"{EXPORTED_INT8}.onnx"
    captured = capsys.readouterr()
    data = load_data("digits")
    run = engine_named("onnxruntime").open(path)
    scores = [evaluate_top1(_commands.OnEngine(run, 1), data.test, data, batch=1)]
    scores.append(evaluate_top1(load(out), data.test, data))
    lines = captured.out.splitlines()
    assert lines[-2] == f"wrote {path} ({quantity(path.stat().st_size, 'B')})"
    found = f"{scores[0]:.2f} %, in float32 {scores[1]:.2f} % ("
    assert lines[-1].startswith(f"top-1 of 359 test images on onnxruntime: {found}")
    assert "top-1, int8 359/359" in captured.out  # how far it is
    assert captured.err.startswith(f"warning: int8 loses {scores[1] - scores[0]:.2f} points of")
    assert captured.err.count("\n") == 1
    assert not (out / f"{EXPORTED}.onnx").exists()
    # Another run has another network.
    assert prune(out, "--force", trials=1, finetune_epochs=0) == 0
    assert not path.exists()


@pytest.mark.thorough
def test_a_result_on_an_engine_in_int8(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine_or_skip("onnxruntime", int8=True)
    before = {path.name for path in out.iterdir()}
    arguments = ["evaluate", str(out), "--data", "digits", "--engine", "onnxruntime", "--int8"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for name in ("onnxruntime", "onnxruntime, int8"):
        assert f"top-1 of 359 test images, % ({name})" in printed
        assert f"file, {name} " in printed
        assert f"least latency, ms ({name}, batch 1, 1 thread)" in printed
    assert "least latency, ms (batch 1, 1 thread)" in printed
    assert {path.name for path in out.iterdir()} == before


def test_the_last_images_fill_a_fixed_batch() -> None:
    seen: list[int] = []

    def opened(x: torch.Tensor) -> list[torch.Tensor]:
        seen.append(len(x))
        return [x * 2, x]

    x = torch.arange(6.0).reshape(3, 2)
    model = _commands.OnEngine(opened, 2)
    assert torch.equal(model(x[:2]), 2 * x[:2])
    assert torch.equal(model(x[2:]), 2 * x[2:])
    assert seen == [2, 2]


def test_a_file_that_differs_is_a_failed_check_of_ours(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def differs(*_: object, **__: object) -> float:
        raise VerificationError("pytorch differs from PyTorch by 1")

    monkeypatch.setattr("lcprune.engines._export.check_file", differs)
    before = {path.name for path in out.iterdir()}
    assert main(["export", str(out), "--format", "pt2"]) == 1
    assert capsys.readouterr().err == "error: pytorch differs from PyTorch by 1\n"
    assert {path.name for path in out.iterdir()} == before


@pytest.mark.thorough
def test_code_of_others_wants_trust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import lcprune as lp

    source = tmp_path / "own.py"
    source.write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 3))\n"
    )
    from lcprune.models import build

    out = tmp_path / "saved"
    x = torch.zeros(1, 1, 4, 4)
    model = build(f"{source}:net", classes=None, input_shape=(1, 4, 4))
    lp.save(model, out, plan=lp.Plan({}), factory=f"{source}:net", example_input=x)
    assert main(["export", str(out), "--format", "pt2"]) == 2
    assert "--trust-factory" in capsys.readouterr().err
    assert not (out / f"{EXPORTED}.pt2").exists()
    assert main(["export", str(out), "--format", "pt2", "--trust-factory"]) == 0
    assert (out / f"{EXPORTED}.pt2").is_file()
