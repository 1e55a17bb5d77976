"""The train command: what it writes, resumes, refuses, and what the result is good for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import lcprune as lp
from lcprune.cli import main
from lcprune.data import Images, hold_out, load_data, training_batches
from lcprune.errors import RunError
from lcprune.fitness import CrossEntropy, Precision
from lcprune.runs import (
    PruneOptions,
    TrainOptions,
    _prune,
    _train,
    prune_job,
    read_run,
    train_job,
)
from lcprune.runs._reporter import Advance, Silent
from lcprune.runs._train import training_config
from lcprune.training import TrainingConfig

OPTIONS: dict[str, Any] = {
    "model": "digits_resnet",
    "data": "digits",
    "epochs": 3,
    "train_dtype": "float32",
    "batch_size": 64,
    "hold_out": 10,
    "seed": 3,
}


def config(**changes: Any) -> TrainOptions:
    return TrainOptions.of(OPTIONS | changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished training; only to be read."""
    out = tmp_path_factory.mktemp("trained") / "out"
    train_job(config(), out)
    return out


def test_the_summary_says_what_was_trained_and_how_it_does(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["schema"] == 1
    assert summary["held_out_images"] + summary["train_images"] == 1438
    assert summary["scores"]["after"]["top1"] > 50
    assert summary["scores"]["held_out"]["top1"] > 50
    assert summary["loss"] < 2


def test_the_result_loads_evaluates_and_can_be_pruned(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not lp.load(trained).training
    assert main(["evaluate", str(trained), "--data", "digits"]) == 0
    top1 = json.loads((trained / "summary.json").read_text())["scores"]["after"]["top1"]
    assert f"{top1:.2f}" in capsys.readouterr().out
    weights = str(trained / "model.safetensors")
    line = f"prune digits_resnet --data digits --weights {weights} --budget macs=50% --trials 2"
    line += f" --recalibrate-images 50 --fitness-images 50 --finetune-epochs 0 --out {tmp_path}/o"
    assert main([*line.split(), "--search-dtype", "float32"]) == 0


class _Breaks(Silent):
    """Interrupts after an epoch."""

    def progress(self, name: str, total: int) -> Any:
        def advance(done: float, text: str) -> None:
            raise KeyboardInterrupt

        class Block:
            def __enter__(self) -> Advance:
                return advance

            def __exit__(self, *_: object) -> None:
                pass

        return Block()


def test_an_interrupted_training_goes_on_to_the_same_weights(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_job(config(), out, resume=True, reporter=_Breaks())
    assert not (out / "summary.json").exists()
    with pytest.raises(RunError, match="unfinished run"):
        train_job(config(), out)
    train_job(config(), out, resume=True)
    for name in ("model.safetensors", "plan.json"):
        assert (out / name).read_bytes() == (trained / name).read_bytes()


def test_resuming_a_finished_training_gives_its_summary(trained: Path) -> None:
    before = (trained / "summary.json").read_bytes()
    assert train_job(config(), trained, resume=True).epochs == 3
    assert (trained / "summary.json").read_bytes() == before
    with pytest.raises(RunError, match="another epochs"):
        train_job(config(epochs=4), trained, resume=True)


def test_prune_does_not_go_on_with_a_training(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prune", "--out", str(trained), "--resume"]) == 2
    assert "holds a run of train" in capsys.readouterr().err


def test_weights_for_other_classes_get_a_new_head(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = trained / "model.safetensors"
    factory = tmp_path / "three.py"
    factory.write_text(
        "import torch\n"
        "from lcprune.data import Data, Images, load_data\n"
        "def three():\n"
        "    data = load_data('digits')\n"
        "    part = lambda x: x.subset(torch.nonzero(x.labels < 3).flatten())\n"
        "    return Data(part(data.train), part(data.test), ('0', '1', '2'), data.mean, data.std,\n"
        "                data.input_shape)\n"
    )
    line = f"train digits_resnet --data {factory}:three --weights {weights} --epochs 1"
    line += " --train-dtype float32 --out"
    assert main([*line.split(), f"{tmp_path}/a"]) == 2
    error = capsys.readouterr().err
    assert "weights for 10 classes (train --new-head" in error
    assert error.count("\n") == 1
    assert main([*line.split(), f"{tmp_path}/b", "--new-head"]) == 0
    assert "new head for 3 classes: linear.bias, linear.weight" in capsys.readouterr().out
    small = lp.load(tmp_path / "b")
    assert small(torch.zeros(1, 1, 8, 8)).shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--weights random --new-head", "random ones were asked for"),
        ("--hold-out 1", "hold_out = 1"),
        ("--hold-out -3", "hold_out = -3"),
        ("--ema 1", "ema = 1.0: expected at least 0 and less than 1"),
        ("--label-smoothing 1.5", "label_smoothing = 1.5"),
        ("--mixup -1", "mixup = -1.0"),
        ("--clip -1", "clip = -1.0"),
        ("--epochs 0", "epochs = 0"),
        ("--weights nowhere.pt", "no such file"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(
    options: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    line = f"train digits_resnet --data digits --out {out} {options}"
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_head_that_fits_needs_no_new_one(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"train digits_resnet --data digits --weights {trained}/model.safetensors --new-head"
    assert main([*line.split(), "--out", str(tmp_path / "out")]) == 2
    assert "no new one needed" in capsys.readouterr().err


def test_prune_judges_candidates_on_the_images_held_out_and_trains_on_the_rest(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, held = hold_out(load_data("digits"), 10)
    judged: list[torch.Tensor] = []
    learned: list[torch.Tensor] = []

    class Fitness(CrossEntropy):
        def __init__(self, images: torch.Tensor, *rest: Any) -> None:
            judged.append(images)
            super().__init__(images, *rest)

    def batches(images: Images, *rest: Any, **options: Any) -> Any:
        learned.append(images.pixels)
        return training_batches(images, *rest, **options)

    monkeypatch.setattr(_prune, "CrossEntropy", Fitness)
    monkeypatch.setattr(_train, "training_batches", batches)
    options = {
        "model": "digits_resnet",
        "data": "digits",
        "weights": str(trained / "model.safetensors"),
        "budget": "macs=50%",
        "trials": 2,
        "recalibrate_images": 60,
        "fitness_images": 100,
        "finetune_epochs": 1,
        "search_dtype": "float32",
        "train_dtype": "float32",
        "hold_out": 10,
    }
    prune_job(PruneOptions.of(options), tmp_path / "out")
    everyone = {image.numpy().tobytes() for image in data.normalise(held.in_memory().pixels)}
    assert len(judged[0]) == 100
    assert all(image.numpy().tobytes() in everyone for image in judged[0])
    assert torch.equal(learned[0], data.train.in_memory().pixels)
    assert len(learned[0]) + len(held) == 1438


def test_options_of_training_reach_it() -> None:
    options = {"label_smoothing": 0.1, "mixup": 0.2, "ema": 0.9, "clip": 2.0, "learning_rate": 0.3}
    training = training_config(config(**options), 7, Precision("float32", channels_last=True))
    assert {key: getattr(training, key) for key in options} == options
    assert training.epochs == 7
    off = training_config(config(), 7, Precision("float32", channels_last=True))
    assert off.ema is None
    assert off.clip is None
    assert off == TrainingConfig(epochs=7, learning_rate=0.1, seed=3)


def test_a_range_test_finds_the_learning_rate_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"train digits_resnet --data digits --epochs 1 --learning-rate auto --out {tmp_path}/a"
    line += " --train-dtype float32"
    assert main(line.split()) == 0
    assert "learning rate" in capsys.readouterr().out
    rate = read_run(tmp_path / "a").state["training learning rate"]
    assert 0.001 < rate < 3
    monkeypatch.setattr(_train, "find_learning_rate", None)
    (tmp_path / "a" / "summary.json").unlink()
    assert main(["train", "--out", f"{tmp_path}/a", "--resume"]) == 0
    assert f"learning rate {rate:.2g}" in capsys.readouterr().out


@pytest.mark.parametrize("rate", ["fast", "0", "-1", "inf", "nan"])
def test_a_learning_rate_is_a_number_or_auto(
    rate: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"train digits_resnet --data digits --out {tmp_path}/a --learning-rate {rate}"
    assert main(line.split()) == 2
    assert "more than 0 and at most 1000, or auto" in capsys.readouterr().err


def test_within_an_epoch_it_is_told_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole numbers are epochs that are done, and the rest of it lies between them."""
    monkeypatch.setattr("lcprune.training._report.SECONDS_APART", 0.0)
    told: list[tuple[float, str]] = []

    class Told(Silent):
        @contextmanager
        def progress(self, name: str, total: int) -> Iterator[Advance]:
            yield lambda done, text: told.append((done, text))

    train_job(config(epochs=2, batch_size=256), tmp_path / "out", reporter=Told())
    done = [share for share, _ in told]
    assert done == sorted(done)
    assert [share for share in done if share == int(share)] == [1, 2]
    assert len([share for share in done if share < 1]) == len(done) // 2 - 1 > 1
    assert all("images/s" in text for _, text in told)
    assert "held out: top-1" in told[-1][1]
