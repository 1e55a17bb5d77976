"""The text CNN example: integers as input, columns of an embedding as channels."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from rich.console import Console

import lcprune as lp
from examples.loading import load_example
from oracle import check, plan_of, randomise


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_example("text_cnn")


def test_the_whole_job_on_little_data(example: ModuleType) -> None:
    outcome = example.run(budget=0.3, trials=4, samples=512, epochs=4, seed=0)
    whole = lp.CostModel(outcome.graph).evaluate()
    assert outcome.plan.cost["macs"] <= 0.3 * whole["macs"]
    assert outcome.error <= 1e-9
    chance = 100 / example.CLASSES
    assert min(outcome.before, outcome.after) > 2 * chance
    console = Console(width=200, record=True)
    with console.capture() as shown:
        console.print(example.table(outcome))
    assert f"{outcome.plan.cost['macs']:,}" in shown.get()


def test_columns_of_the_embedding_are_channels_of_all_branches(example: ModuleType) -> None:
    model = randomise(example.TextCNN(), 0)
    tokens, _ = example.sequences(3, 0)
    graph = lp.trace(model, tokens)
    keys = {("embedding.weight", 1), *((f"branches.{n}.0.weight", 1) for n in range(3))}
    (family,) = [f for f in graph.families if ("embedding.weight", 1) in f.dimensions]
    assert set(family.dimensions) == keys
    assert len(family.groups) == 32
    assert {u.tensor for u in graph.untouched} == {"classify.weight"}
    for seed in range(3):
        seen = check(model, tokens, seed, graph)
        assert seen.error <= 1e-9
        assert seen.effect > 1e-3
    keep = np.ones(graph.prunable, dtype=bool)
    keep[list(family.groups[:20])] = False
    small = lp.slim(model, plan_of(graph, keep))
    assert small.embedding.weight.shape == (example.VOCABULARY, 12)
    assert small.embedding.embedding_dim == 12
    assert lp.verify(model, small, plan_of(graph, keep), tokens) <= 1e-9


def test_batch_norms_are_estimated_on_tokens(example: ModuleType) -> None:
    model = randomise(example.TextCNN(), 0)
    tokens, _ = example.sequences(64, 0)
    lp.recalibrate(model, [tokens])
    with torch.no_grad():
        embedded = model.embedding(tokens).transpose(1, 2)
        expected = model.branches[0][0](embedded).mean((0, 2))
    assert torch.allclose(model.branches[0][1].running_mean, expected, atol=1e-5)


def test_sequences_follow_their_seed_and_have_all_classes(example: ModuleType) -> None:
    tokens, classes = example.sequences(400, 3)
    again, _ = example.sequences(400, 3)
    other, _ = example.sequences(400, 4)
    assert torch.equal(tokens, again)
    assert not torch.equal(tokens, other)
    assert tokens.dtype == classes.dtype == torch.int64
    assert set(classes.tolist()) == set(range(example.CLASSES))
