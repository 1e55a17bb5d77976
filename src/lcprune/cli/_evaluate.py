"""Accuracy and cost of a saved result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.table import Table

from lcprune.artifact import load
from lcprune.cli._table import cost_name, latency_name, quantity
from lcprune.cost import CostModel
from lcprune.data import first_pixels, load_data
from lcprune.runs import check_logits, choose_device, measure_latencies, warnings_to
from lcprune.tracing import trace
from lcprune.training import evaluate_top1


def evaluate_saved(
    directory: Path,
    data_name: str,
    *,
    device: str = "auto",
    trust_factory: bool = False,
    warn: Callable[[str], None],
) -> Iterator[Table]:
    """What to print about the model in ``directory``: top-1 on the test split, costs, latency.

    Everything is measured on the loaded model; ``warn`` gets what loading warns of.
    ``InputError`` where the directory or the data can't be used or don't fit one another.
    """
    where = choose_device(device)
    with warnings_to(warn):
        model = load(directory, trust_factory=trust_factory)
    data = load_data(data_name)
    example_input = data.normalise(first_pixels(data.test, 1))
    check_logits(model, example_input, data)
    cost = CostModel(trace(model, example_input)).evaluate()
    (latency,) = measure_latencies([model], example_input)
    top1 = evaluate_top1(model.to(where), data.test, data)
    table = Table("", title=f"{directory} on {data.name}", title_justify="left")
    table.add_column("value", justify="right")
    table.add_row(f"top-1 of {len(data.test)} test images, %", f"{top1:.2f}")
    for name, value in cost.items():
        table.add_row(cost_name(name), quantity(value))
    table.add_row(latency_name(len(example_input), torch.get_num_threads()), f"{latency:.2f}")
    yield table
