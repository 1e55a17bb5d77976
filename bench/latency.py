"""Predicted and measured latency of networks at random widths. A row for every network and cut.

    python bench/latency.py --work DIR                  # three networks on three engines
    python bench/latency.py table
    python bench/latency.py picture --table DIR/TABLE.json --out docs/latency.svg

The tables of operators are in DIR (made where they are not there, ten minutes each at most). Every
cut takes for each family one of the widths that its table likes, at random from the floor on; seed
-1 is the whole network. The exported network is timed in turns with the whole one: the least of at
least a hundred runs each. Weights are random, which is enough for time. Timings need a machine that
does nothing else.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

import runner
from lcprune.cost import CostModel
from lcprune.engines import (
    LatencyTable,
    Opened,
    Stairs,
    engine_named,
    measure,
    stairs,
    time_in_turns,
)
from lcprune.graph import BoolArray, ChannelGraph
from lcprune.models import build
from lcprune.ranking import PlanBuilder
from lcprune.slimming import repair, slim
from lcprune.tracing import Inputs, trace

KEYS = ("network", "engine", "batch", "seed", "machine")
WIDTH, HEIGHT = 640, 300
STYLE = """
text { font: 12px sans-serif; fill: #7d8590 } line, path { stroke: #7d8590; fill: none }
.measured { fill: #d1702c; stroke: none } path.least { stroke: #2f74c0; stroke-width: 2 }
text.least { fill: #2f74c0 } text.measured { fill: #d1702c }
"""


def main() -> None:
    if sys.argv[1:2] == ["picture"]:
        picture(sys.argv[2:])
        return
    bench = runner.Bench("latency", __doc__, KEYS, table)
    bench.argument("--work", required=True, type=Path, metavar="DIR")
    bench.argument(
        "--networks",
        nargs="+",
        default=["cifar_resnet56", "cifar_mobilenet_v2", "torchvision/resnet18"],
    )
    bench.argument("--engines", nargs="+", default=["onnxruntime", "openvino", "pytorch"])
    bench.argument("--batch", type=int, default=1)
    bench.argument("--seeds", nargs="+", type=int, default=[-1, 0, 1, 2, 3])
    bench.argument("--table-seconds", type=float, default=600.0)
    options = bench.parse()
    torch.set_num_threads(1)
    for network in options.networks:
        for engine in options.engines:
            for seed in options.seeds:
                key = {"network": network, "engine": engine, "batch": options.batch, "seed": seed}
                bench.row(key, lambda n=network, e=engine, s=seed: measured(options, n, e, s))


def side(network: str) -> int:
    """Of its images, pixels."""
    return 32 if network.startswith("cifar") else 224


@cache
def traced(network: str) -> tuple[nn.Module, torch.Tensor, ChannelGraph]:
    shape = (1, 3, *2 * [side(network)])
    torch.manual_seed(0)
    model = build(network, classes=10, input_shape=shape[1:]).eval()
    example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return model, example, repair(model, trace(model, example), example)


def table_file(network: str, engine: str, batch: int, work: Path) -> Path:
    return work / f"{network.replace('/', '_')}-{engine}{'' if batch == 1 else f'-{batch}'}.json"


@cache
def tabled(network: str, engine: str, batch: int, work: Path, seconds: float) -> LatencyTable:
    model, _, graph = traced(network)
    file = table_file(network, engine, batch, work)
    if file.exists():
        return LatencyTable.read(file)
    return measure(model, graph, engine, batch=batch, seconds=seconds, path=file)


def measured(options: argparse.Namespace, network: str, engine: str, seed: int) -> dict[str, Any]:
    model, example, graph = traced(network)
    table_ = tabled(network, engine, options.batch, options.work, options.table_seconds)
    keep = drawn(graph, table_, seed)
    cost = CostModel(graph, ["macs", table_])
    small = slim(model, PlanBuilder(graph, cost).plan(keep))
    example = example.repeat(options.batch, *[1] * (example.dim() - 1))
    with TemporaryDirectory() as folder:
        run = {
            name: opened(engine, each, example, Path(folder) / name)
            for name, each in (("whole", model), ("cut", small))
        }
        times = time_in_turns(
            {name: lambda one=one: one(example) for name, one in run.items()},
            batch=options.batch,
            threads=1,
            seconds=2,
        )
    whole, cut = cost.evaluate(), cost.evaluate(keep)
    return {
        "versions": dict(table_.versions),
        "cells": sum(map(len, table_.times.values())),
        "noise": table_.noise,
        "macs": round(cut["macs"] / whole["macs"], 4),
        "predicted_ms": [round(each["latency"] / 1e6, 4) for each in (whole, cut)],
        "least_ms": [round(times[name].least_ms, 4) for name in ("whole", "cut")],
        "tenth_ms": [round(times[name].tenth_ms, 4) for name in ("whole", "cut")],
    }


def opened(name: str, model: nn.Module, example: torch.Tensor, folder: Path) -> Opened:
    engine = engine_named(name)
    folder.mkdir()
    engine.write(model.requires_grad_(False), Inputs(example), folder / f"n{engine.suffix}")
    return engine.open(folder / f"n{engine.suffix}", 1)


def drawn(graph: ChannelGraph, table_: LatencyTable, seed: int) -> BoolArray:
    """The groups that stay at a rung of each family, drawn; all of them for -1."""
    keep = np.ones(graph.prunable, dtype=np.bool_)
    if seed < 0:
        return keep
    rng = np.random.default_rng(seed)
    for family, rungs in zip(graph.families, table_.rungs(graph), strict=True):
        floor = max(1, -(-len(family.groups) // 10))
        width = int(rng.choice(rungs[rungs >= floor]))
        keep[list(family.groups[width:])] = False
    return keep


def table(_: argparse.Namespace) -> None:
    groups = defaultdict(list)
    for row in runner.rows("latency"):
        groups[row["network"], row["engine"], row["batch"], row["machine"]].append(row)
    lines = []
    for (network, engine, batch, _), rows in groups.items():
        whole = [row for row in rows if row["seed"] < 0]
        cuts = [row for row in rows if row["seed"] >= 0]
        at = [row["predicted_ms"][0] / row["least_ms"][0] for row in whole]
        # With the factor that the whole network corrects the table by.
        ratios = [
            (row["predicted_ms"][1] / row["predicted_ms"][0])
            / (row["least_ms"][1] / row["least_ms"][0])
            for row in cuts
        ]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "–"
        first = f"{whole[0]['least_ms'][0]:.3f}" if whole else "–"
        shown = f"{np.mean(at):.2f}" if at else "–"
        lines.append([network, engine, batch, first, shown, len(cuts), spread])
    head = ["network", "engine", "batch", "whole, ms", "predicted / measured", "cuts"]
    nothing = [["nothing yet", *["–"] * len(head)]]
    print(runner.markdown([*head, "the same of the ratio to the whole"], lines or nothing))


def picture(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="latency.py picture", description=picture.__doc__)
    parser.add_argument("--table", required=True, type=Path)
    parser.add_argument("--network", default="cifar_resnet56")
    parser.add_argument("--layer", help="its operator; the costliest where there is none")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args(arguments)
    found = LatencyTable.read(options.table)
    every = stairs(found, traced(options.network)[2])
    one = next(s for s in every if options.layer in (None, s.module))
    options.out.write_text(svg(found, one), encoding="utf-8")


def svg(found: LatencyTable, one: Stairs) -> str:
    """Measured times by output width as points, and the envelope that is bound as a line."""
    top = 1.1 * float(one.times.max())
    left, below = 60, HEIGHT - 40

    def x(width: float) -> float:
        return left + (WIDTH - left - 20) * width / one.widths[-1]

    def y(ns: float) -> float:
        return below - (below - 30) * ns / top

    version = ", ".join(f"{name} {number}" for name, number in found.versions.items())
    kind = one.key.partition("(")[0]
    parts = [
        f'<text x="{left}" y="16">{one.module} ({kind}), µs by channels of its output:'
        f" {version}, batch {found.batch}, {found.threads} thread</text>",
        f'<line x1="{left}" y1="{below}" x2="{WIDTH - 20}" y2="{below}"/>',
        f'<line x1="{left}" y1="30" x2="{left}" y2="{below}"/>',
    ]
    for width in one.widths.tolist():
        parts.append(
            f'<text x="{x(width):.0f}" y="{below + 18}" text-anchor="middle">{width}</text>'
        )
    for share in (0.25, 0.5, 0.75, 1.0):
        ns = share * float(one.times.max())
        parts.append(
            f'<text x="{left - 6}" y="{y(ns) + 4:.0f}" text-anchor="end">{ns / 1000:.0f}</text>'
        )
    line, last = f"M{x(0):.1f} {y(float(one.least[0])):.1f}", 0.0
    for width, ns in zip(one.widths.tolist(), one.least.tolist(), strict=True):
        line += f"L{x(last):.1f} {y(ns):.1f}L{x(width):.1f} {y(ns):.1f}"
        last = width
    parts.append(f'<path class="least" d="{line}"/>')
    for width, ns in zip(one.widths.tolist(), one.times.tolist(), strict=True):
        parts.append(f'<circle class="measured" cx="{x(width):.1f}" cy="{y(ns):.1f}" r="4"/>')
    parts.append(f'<text class="measured" x="{left + 12}" y="44">● measured</text>')
    parts.append(f'<text class="least" x="{left + 110}" y="44">— what is bound</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">\n'
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    main()
