from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lcprune.artifact import save
from lcprune.errors import InputError, RunError
from lcprune.models import build
from lcprune.ranking import Plan
from lcprune.runs import (
    GRAPH,
    RUN,
    SUMMARY,
    Cost,
    FinalistOutcome,
    Latency,
    Run,
    RunRecord,
    Scores,
    Silent,
    Summary,
    TrainSummary,
    check_run,
    read_summary,
    read_train_summary,
)
from lcprune.runs._run import begin_run

# The keys that the documented contract of summary.json lists.
CONTRACT = """
schema model data seed costs scores criterion compensation strategy round_to verify_error
training_checked loss_search_best trials search_seconds finetune_epochs finetune_seconds latency
dtype_search threads device peak_rss_mb base_weights_sha256 versions
"""
ADDED = ("finalists", "choices")

SAMPLE = Summary(
    model="cifar_resnet56",
    data="cifar10:/data",
    seed=0,
    costs={
        "macs": Cost("MACs", "50%", 50, 100, 49, 0.49, True),
        "params": Cost("parameters", None, None, 1000, 600, 0.6, True),
    },
    scores={"before": Scores(93.39), "pruned": Scores(80.0), "after": Scores(None)},
    criterion="l2",
    compensation="additive",
    strategy="evolution",
    round_to=1,
    verify_error=1e-15,
    training_checked=True,
    loss_search_best=0.2,
    trials=400,
    search_seconds=300.5,
    finetune_epochs=5,
    finetune_seconds=600.0,
    latency=(Latency("pytorch", 1, 2, before_ms=10.0, after_ms=None),),
    dtype_search="bfloat16",
    threads=2,
    device="cpu",
    peak_rss_mb=512.0,
    base_weights_sha256="0" * 64,
    versions={"torch": "2"},
    finalists=None,
    choices={"search": {"dtype": "bfloat16"}},
)
TRAINED = TrainSummary(
    model="digits_resnet",
    data="digits",
    seed=0,
    epochs=2,
    train_images=9,
    held_out_images=1,
    loss=0.5,
    scores={"after": Scores(50.0), "held_out": Scores(40.0)},
    macs=None,
    params=3,
    train_seconds=1.0,
    dtype_train="float32",
    threads=1,
    device="cpu",
    peak_rss_mb=None,
    versions={},
    history=[{"epoch": 1, "loss": 0.5}],
    choices={},
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    record = RunRecord("prune", {"seed": 0})
    begin_run(tmp_path, record)
    return Run(tmp_path, record, Silent())


def test_the_keys_are_those_of_the_contract() -> None:
    raw = json.loads(SAMPLE.to_json())
    assert next(iter(raw)) == "schema"
    assert sorted(raw) == sorted([*CONTRACT.split(), *ADDED]) == sorted(Summary.keys())
    assert list(raw["costs"]["macs"]) == [
        "unit",
        "asked",
        "limit",
        "before",
        "after",
        "ratio",
        "met",
    ]
    assert raw["costs"]["params"]["asked"] is raw["costs"]["params"]["limit"] is None
    keys = ["engine", "batch", "threads", "before_ms", "after_ms", "predicted_ms"]
    assert [list(entry) for entry in raw["latency"]] == [keys]
    assert list(raw["scores"]) == ["before", "pruned", "after"]
    assert raw["scores"]["after"] == {"top1": None}
    assert raw["schema"] == 1


def test_summaries_survive_the_file(run: Run) -> None:
    for summary, read in ((SAMPLE, read_summary), (TRAINED, read_train_summary)):
        run.finish(summary.to_json())
        assert read(run.directory) == summary


def test_finalists_survive_the_file_and_are_null_where_there_were_none(run: Run) -> None:
    finalists = (FinalistOutcome(0.5, 0.25), FinalistOutcome(0.75, None))
    summary = replace(SAMPLE, finalists=finalists)
    assert json.loads(summary.to_json())["finalists"] == [
        {"loss_search": 0.5, "loss_trained": 0.25},
        {"loss_search": 0.75, "loss_trained": None},
    ]
    run.finish(summary.to_json())
    assert read_summary(run.directory) == summary
    assert json.loads(SAMPLE.to_json())["finalists"] is None


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("finalists", [1]),
        ("finalists", [{"loss": 1.0}]),
        ("finalists", 3),
        ("costs", None),
        ("costs", {"macs": 3}),
        ("scores", {"after": 3.0}),
        ("latency", {"a": 1}),
        ("new", 1),
    ],
)
def test_what_is_no_summary_is_told(run: Run, key: str, bad: Any) -> None:
    run.finish(json.dumps({**json.loads(SAMPLE.to_json()), key: bad}))
    with pytest.raises(InputError, match=r"summary\.json: not a summary"):
        read_summary(run.directory)


def test_a_number_that_json_lacks_is_refused() -> None:
    with pytest.raises(ValueError):
        replace(SAMPLE, verify_error=float("nan")).to_json()


@pytest.mark.parametrize("text", [None, "{", "[]", '{"schema": 1}', '{"schema": 7}'])
def test_what_is_no_summary_is_an_input_error(run: Run, text: str | None) -> None:
    if text is not None:
        run.finish(text)
    with pytest.raises(InputError) as caught:
        read_summary(run.directory)
    assert "\n" not in str(caught.value)
    assert str(run.directory / SUMMARY) in str(caught.value)


def test_every_result_is_vouched_for_once(run: Run) -> None:
    """By the manifest, or by the file that the manifest vouches for."""
    out = run.directory
    model = build("digits_resnet", classes=10, input_shape=(1, 8, 8))
    example = next(model.parameters()).new_zeros(1, 1, 8, 8)
    save(model, out, plan=Plan(kept={}), example_input=example, factory="digits_resnet")
    (out / GRAPH).write_text("{}")
    run.finish(SAMPLE.to_json())
    results = {path.name for path in out.iterdir()} - {RUN}
    manifest = json.loads((out / RUN).read_text())["state"]["results_sha256"]
    described = json.loads((out / "artifact.json").read_text())["sha256"]
    assert set(manifest) | set(described) == results
    assert not set(manifest) & set(described)
    check_run(out, resume=True)
    for name in results:
        content = (out / name).read_bytes()
        (out / name).write_bytes(content[:-1] + b"!")
        with pytest.raises(RunError, match=name):
            check_run(out, resume=True)
        (out / name).write_bytes(content)
    (out / SUMMARY).write_text(replace(SAMPLE, seed=1).to_json())
    with pytest.raises(InputError, match=r"summary\.json is not the file that the run wrote"):
        read_summary(out)
