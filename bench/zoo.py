"""Is pruning right on networks that nobody tuned it for? A row for every network of the zoo.

    python bench/zoo.py                      # goes on where it was stopped
    python bench/zoo.py --match 'timm/res*'  # some of them, again
    python bench/support_table.py            # the table of docs/support.md from the rows

Every parameter and buffer is random. Each network is traced and checked (``repair``), then cut by
three other random plans and compared in float64 with the masked original, in evaluation and in
training mode (detectors with targets, down to their losses); its predicted MACs are compared with
``torch.utils.flop_counter`` on the slimmed network. ``coverage`` is the least share of the MACs
that is reachable when every family keeps at least 10 %.
"""

from __future__ import annotations

import math
import re
import time
import warnings
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import workers
import zoo_models
from lcprune.cost import CostModel
from lcprune.errors import LcpruneError, VerificationError
from lcprune.graph import ChannelGraph
from lcprune.ranking import PlanBuilder
from lcprune.slimming import difference, effect, repair, slim
from lcprune.testing import random_keep, randomise
from lcprune.tracing import ExampleInput, Inputs, trace

PLANS = 3
TOLERANCE = 1e-9
VISIBLE = 1e-3
MOST_COVERAGE = 0.8
OUTPUT = re.compile("(an output|output .+) of the model")
"""The reason of what stays as it is since the model returns it."""


def examine(name: str) -> dict[str, Any]:
    """Everything that the bench says about a network."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = zoo_models.build(name)
    images = zoo_models.example(name, model, generator)
    given = zoo_models.training_inputs(name, images)
    # A detector's loss decides by data: with one example what it has in hand would stay.
    examples = images if given is None else [images, images.flip(3) * 0.7]
    randomise(model, seed=1)
    row: dict[str, Any] = {
        "model": name,
        "input": list(images.shape),
        "params": sum(p.numel() for p in model.parameters()),
        "norms": sorted({type(m).__name__ for m in model.modules() if "Norm" in type(m).__name__}),
    }
    start = time.perf_counter()
    with torch.no_grad():
        model(images)
    row["forward_seconds"] = round(time.perf_counter() - start, 4)
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(action="ignore"):
            traced = trace(model, examples, training_inputs=given)
        row["trace_seconds"] = round(time.perf_counter() - start, 4)
        start = time.perf_counter()
        graph = repair(model, traced, examples, training_inputs=given, seed=PLANS)
        row["repair_seconds"] = round(time.perf_counter() - start, 4)
    except LcpruneError as error:
        return row | {"verdict": "refused", "why": str(error)}
    row["repaired"] = traced.prunable - graph.prunable
    row["repaired_in_training"] = sum(
        entry.count for entry in graph.untouched if "in training mode when these" in entry.reason
    )
    row |= _chances(graph)
    row |= _right(model, images, examples, given, graph)
    row["verdict"] = _verdict(row)
    return row


def _chances(graph: ChannelGraph) -> dict[str, Any]:
    """How much there is to prune, and what stands in the way."""
    cost = CostModel(graph)
    keep = np.ones(graph.prunable, dtype=bool)
    for family in graph.families:
        floor = max(1, -(-len(family.groups) // 10))
        keep[list(family.groups[floor:])] = False
    reasons: Counter[str] = Counter()
    for entry in graph.untouched:
        reasons[entry.reason] += entry.count
    before = cost.evaluate()["macs"]
    return {
        "macs": before,
        "prunable": graph.prunable,
        "families": len(graph.families),
        "filters": int(sum(len(graph.dimension(*key).channels) for key in graph.producers)),
        "coverage": round(cost.evaluate(keep)["macs"] / before, 4) if before else 1.0,
        "untouched": dict(reasons.most_common(6)),
        "notes": list(graph.notes[:3]),
        "uncounted": list(graph.uncounted),
    }


def _right(
    model: nn.Module,
    images: Tensor,
    examples: ExampleInput,
    given: Inputs | None,
    graph: ChannelGraph,
) -> dict[str, Any]:
    """The largest differences from the masked original over the plans, and what masking does."""
    builder = PlanBuilder(graph)
    seen, agree, effects = [], [], []
    for seed in range(PLANS):
        plan = builder.plan(random_keep(graph, np.random.default_rng(seed)))
        small = slim(model, plan)
        try:
            seen.append(difference(model, small, plan, examples, training_inputs=given))
        except VerificationError as error:
            return {"error": math.inf, "effect": math.inf, "why": str(error)[:300]}
        if seed == 0:
            effects.append(effect(model, plan, examples, training_inputs=given))
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
            small.eval()(images)
        agree.append(flops.get_total_flops() / 2 / max(1, plan.cost["macs"]))
    trained = [one.training for one in seen if one.training is not None]
    return {
        "error": max(one.evaluation for one in seen),
        "training_checked": graph.training_checked and len(trained) == len(seen),
        "training": max(trained, default=None),
        "training_why": graph.training_error or seen[0].training_error,
        "precisions": sorted({str(p) for o in seen for p in (o.precision, o.training_precision)}),
        "effect": min(effects),
        "flops_over_predicted": agree,
    }


def _verdict(row: dict[str, Any]) -> str:
    least = TOLERANCE if "torch.float32" not in row.get("precisions", ()) else 1e-4
    worst = max(row["error"], row.get("training") or 0.0)
    if not worst <= least or any(abs(a - 1) > 1e-9 for a in row["flops_over_predicted"]):
        return "wrong"
    if row["coverage"] > MOST_COVERAGE:
        return "refused"
    if not row["effect"] > VISIBLE:
        return "blind"
    return "exact" if all(map(OUTPUT.fullmatch, row["untouched"])) else "exact except"


def main() -> None:
    workers.main("zoo", __doc__, zoo_models.names(), examine, "wrong", limit=1800, key={"modes": 2})


if __name__ == "__main__":
    main()
