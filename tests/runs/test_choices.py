"""What is chosen by measurement is chosen once for a machine and a network."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from digit_runs import outcome
from lcprune._files import sealed_json
from lcprune.fitness import Precision
from lcprune.runs import (
    JOURNAL,
    Choices,
    PruneOptions,
    _choices,
    _prune,
    _train,
    cache_folder,
    prune_job,
    read_run,
    read_summary,
)
from lcprune.runs._choices import choice_key
from lcprune.searching import read_journal

MODEL = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
IMAGES = torch.zeros(2, 3, 8, 8)


class Stopwatch:
    """Chooses otherwise every time it is asked."""

    def __init__(self) -> None:
        self._times = count(1)

    def __call__(self, *_: object) -> Precision:
        return Precision(batch=next(self._times))


def test_the_first_choice_holds_until_it_is_measured_anew(tmp_path: Path) -> None:
    watch = Stopwatch()
    for _ in range(2):
        assert Choices(tmp_path).choose("search", MODEL, IMAGES, watch) == Precision(batch=1)
    anew = Choices(tmp_path, remeasure=True)
    assert anew.choose("search", MODEL, IMAGES, watch) == Precision(batch=2)
    assert Choices(tmp_path).choose("search", MODEL, IMAGES, watch) == Precision(batch=2)


def test_another_machine_network_or_question_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, choices = Stopwatch(), Choices(tmp_path)
    wider = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
    assert choices.choose("search", MODEL, IMAGES, watch) == Precision(batch=1)
    assert choices.choose("training", MODEL, IMAGES, watch) == Precision(batch=2)
    assert choices.choose("search", wider, IMAGES, watch) == Precision(batch=3)
    assert choices.choose("search", MODEL, IMAGES[:1], watch) == Precision(batch=4)
    assert choices.choose("search", MODEL, IMAGES[..., :7], watch) == Precision(batch=5)
    with monkeypatch.context() as patch:
        patch.setattr(_choices, "processor", lambda _: "another one")
        assert choices.choose("search", MODEL, IMAGES, watch) == Precision(batch=6)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 77)
        assert choices.choose("search", MODEL, IMAGES, watch) == Precision(batch=7)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "99")
        assert choices.choose("search", MODEL, IMAGES, watch) == Precision(batch=8)
    assert choices.choose("search", MODEL, IMAGES, watch) == Precision(batch=1)
    with torch.no_grad():
        MODEL[0].weight.add_(1)  # other weights are the same work
    assert choices.choose("search", MODEL, IMAGES, watch) == Precision(batch=1)
    json.dumps(choice_key("search", MODEL, IMAGES))


@pytest.mark.parametrize("content", ["", "{", "[]", "half", None])
def test_a_damaged_file_is_as_none(tmp_path: Path, content: str | None) -> None:
    watch, choices = Stopwatch(), Choices(tmp_path)
    choices.choose("search", MODEL, IMAGES, watch)
    [path] = tmp_path.iterdir()
    text = path.read_text()
    path.write_text(text.replace('"batch": 1', '"batch": 9') if content is None else content)
    assert choices.choose("search", MODEL, IMAGES, watch) == Precision(batch=2)
    assert choices.choose("search", MODEL, IMAGES, watch) == Precision(batch=2)


@pytest.mark.parametrize(
    "choice",
    [
        None,
        [],
        "float32",
        {"batch": "9"},
        {"batch": 10**30},
        {"dtype": 3},
        {"odd": 1},
        {"batch": 0},
    ],
)
def test_a_choice_of_another_type_is_as_none(tmp_path: Path, choice: Any) -> None:
    """Its checksum is right."""
    watch, choices = Stopwatch(), Choices(tmp_path)
    choices.choose("search", MODEL, IMAGES, watch)
    [path] = tmp_path.iterdir()
    key = choice_key("search", MODEL, IMAGES)
    path.write_text(sealed_json({"key": key, "choice": choice}))
    assert choices.choose("search", MODEL, IMAGES, watch) == Precision(batch=2)


def test_a_folder_that_can_not_be_written_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    watch, choices = Stopwatch(), Choices(tmp_path / "file" / "below")
    assert choices.choose("search", MODEL, IMAGES, watch) == Precision(batch=1)
    assert choices.choose("search", MODEL, IMAGES, watch) == Precision(batch=2)


def test_of_two_processes_the_first_choice_holds(tmp_path: Path) -> None:
    watch = Stopwatch()

    def slowly() -> Precision:
        own = watch()
        Choices(tmp_path).choose("search", MODEL, IMAGES, watch)  # another one is faster
        return own

    assert Choices(tmp_path).choose("search", MODEL, IMAGES, slowly) == Precision(batch=2)
    assert Choices(tmp_path).choose("search", MODEL, IMAGES, watch) == Precision(batch=2)


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCPRUNE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("LCPRUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "lcprune"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "lcprune"


@pytest.mark.thorough
def test_the_same_command_gives_the_same_bits_whatever_the_stopwatch_says(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second choice gives other losses, as ``remeasure`` shows."""
    monkeypatch.setenv("LCPRUNE_CACHE", str(tmp_path / "cache"))
    times = count()

    def stopwatch(*_: object) -> Precision:
        first = next(times) < 2  # one for the search, one for training
        return Precision("float32" if first else "bfloat16", channels_last=first, batch=50)

    monkeypatch.setattr(_prune, "choose_precision", stopwatch)
    monkeypatch.setattr(_train, "choose_training_precision", stopwatch)
    changes = {"search_dtype": "auto", "train_dtype": "auto", "trials": 4, "finetune_epochs": 1}
    config = PruneOptions.of(options | changes)
    for name in ("one", "two"):
        prune_job(config, tmp_path / name)
    prune_job(config, tmp_path / "anew", remeasure=True)
    losses = {
        name: [trial.loss for trial in read_journal(tmp_path / name / JOURNAL).trials]
        for name in ("one", "two", "anew")
    }
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")
    assert losses["one"] == losses["two"] != losses["anew"]
    choice = {"dtype": "float32", "channels_last": True, "batch": 50}
    summary = read_summary(tmp_path / "two")
    assert summary.choices == {"search": choice, "training": choice}
    assert read_run(tmp_path / "two").state["search precision"] == choice
    assert read_summary(tmp_path / "anew").dtype_search == "bfloat16"
    assert prune_job(config, tmp_path / "after").choices["search"]["dtype"] == "bfloat16"
