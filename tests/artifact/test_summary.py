from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lcprune.artifact import (
    RUN,
    SUMMARY,
    WEIGHTS,
    BudgetOutcome,
    FinalistOutcome,
    Latency,
    RunRecord,
    Summary,
    begin_run,
    check_run,
    read_summary,
    write_summary,
)
from lcprune.errors import InputError, RunError

# The keys that the documented contract of summary.json lists.
CONTRACT = """
schema model data seed budget criterion compensation strategy macs_before macs_after params_before
params_after top1_before top1_pruned top1_after verify_error loss_search_best trials search_seconds
finetune_epochs finetune_seconds latency_ms_before latency_ms_after dtype_search threads device
peak_rss_mb base_weights_sha256 versions
"""
ADDED = "finalists"
"""What summaries of earlier versions lack."""

SAMPLE = Summary(
    model="cifar_resnet56",
    data="cifar10:/data",
    seed=0,
    budget={"macs": BudgetOutcome(asked="50%", limit=50, before=100, after=49, ratio=0.49)},
    criterion="l2",
    compensation="additive",
    strategy="evolution",
    macs_before=100,
    macs_after=49,
    params_before=1000,
    params_after=600,
    top1_before=93.39,
    top1_pruned=80.0,
    top1_after=92.5,
    verify_error=1e-15,
    loss_search_best=0.2,
    trials=400,
    search_seconds=300.5,
    finetune_epochs=5,
    finetune_seconds=600.0,
    latency_ms_before=Latency(value=10.0, engine="pytorch", batch=1, threads=2),
    latency_ms_after=None,
    dtype_search="bfloat16",
    threads=2,
    device="cpu",
    peak_rss_mb=512.0,
    base_weights_sha256="0" * 64,
    versions={"torch": "2"},
)


def test_the_keys_are_those_of_the_contract() -> None:
    raw = json.loads(SAMPLE.to_json())
    assert next(iter(raw)) == "schema"
    assert sorted(raw) == sorted([*CONTRACT.split(), ADDED]) == sorted(Summary.keys())
    assert sorted(raw["budget"]["macs"]) == ["after", "asked", "before", "limit", "ratio"]
    assert sorted(raw["latency_ms_before"]) == ["batch", "engine", "threads", "value"]
    assert raw["latency_ms_after"] is None
    assert raw["schema"] == 1


def test_a_summary_survives_the_file(tmp_path: Path) -> None:
    write_summary(tmp_path, SAMPLE)
    assert read_summary(tmp_path) == SAMPLE


def test_finalists_survive_the_file_and_are_null_where_there_were_none(tmp_path: Path) -> None:
    finalists = (FinalistOutcome(0.5, 0.25), FinalistOutcome(0.75, None))
    summary = replace(SAMPLE, finalists=finalists)
    assert json.loads(summary.to_json())["finalists"] == [
        {"loss_search": 0.5, "loss_trained": 0.25},
        {"loss_search": 0.75, "loss_trained": None},
    ]
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path) == summary
    assert json.loads(SAMPLE.to_json())["finalists"] is None


def test_a_summary_from_before_there_were_finalists_is_read(tmp_path: Path) -> None:
    raw = json.loads(SAMPLE.to_json())
    del raw[ADDED]
    (tmp_path / SUMMARY).write_text(json.dumps(raw))
    assert read_summary(tmp_path) == SAMPLE


@pytest.mark.parametrize("bad", [[1], [{"loss": 1.0}], 3, {"loss_search": 1.0}])
def test_finalists_that_are_none(tmp_path: Path, bad: object) -> None:
    raw = {**json.loads(SAMPLE.to_json()), ADDED: bad}
    (tmp_path / SUMMARY).write_text(json.dumps(raw))
    with pytest.raises(InputError, match="not a summary"):
        read_summary(tmp_path)


def test_a_number_that_json_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_summary(tmp_path, replace(SAMPLE, top1_after=float("nan")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [None, "{", "[]", '{"schema": 1}', '{"schema": 7}'])
def test_what_is_no_summary_is_an_input_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / SUMMARY).write_text(text)
    with pytest.raises(InputError) as caught:
        read_summary(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_end_of_a_run_notes_what_its_results_are(tmp_path: Path) -> None:
    begin_run(tmp_path, RunRecord("prune", {"seed": 0}))
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    write_summary(tmp_path, SAMPLE)
    assert read_summary(tmp_path) == SAMPLE
    check_run(tmp_path, resume=True)
    (tmp_path / WEIGHTS).write_bytes(b"wEights")
    with pytest.raises(RunError, match=WEIGHTS):
        check_run(tmp_path, resume=True)
    (tmp_path / SUMMARY).write_text(replace(SAMPLE, seed=1).to_json())
    with pytest.raises(InputError, match=f"{SUMMARY} is damaged"):
        read_summary(tmp_path)
    assert json.loads((tmp_path / RUN).read_text())["configuration"] == {"seed": 0}
