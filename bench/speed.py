"""How fast networks are that `lcprune prune` cut, beside the whole one. A row for every cut.

    python bench/speed.py --work DIR --networks cifar_mobilenet_v2 --weights DIR \\
        --budgets macs=50% latency=60% --round-to 1 8 16 auto --methods uniform none
    python bench/speed.py --work DIR --networks torchvision/resnet50 --methods none torch-pruning
    python bench/speed.py table

A row is one run of the command with one trial and no training, on random images, since only time
counts here; what it wrote is timed in turns with the whole network, as every run with an engine
does. Weights are the published ones of ``--weights`` where there are some, else random. Tables of
operators are in DIR, made where they are not there. ``torch-pruning`` is its uniform ratio, the
least that is within the same MACs. Timings need a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.utils.flop_counter import FlopCounterMode

import latency
import plans
import runner
from lcprune.data import Augmentation, Data, Images
from lcprune.engines import time_in_turns
from lcprune.models import build

KEYS = ("network", "engine", "batch", "method", "budget", "round_to", "machine")
PEER = "torch-pruning"


def main() -> None:
    bench = runner.Bench("speed", __doc__, KEYS, table)
    bench.argument("--work", required=True, type=Path, metavar="DIR")
    bench.argument("--weights", type=Path, metavar="DIR")
    bench.argument("--networks", nargs="+", required=True)
    bench.argument("--engines", nargs="+", default=["onnxruntime"])
    bench.argument("--batch", type=int, default=1)
    bench.argument("--budgets", nargs="+", default=["macs=50%"])
    bench.argument("--round-to", nargs="+", default=["auto"])
    bench.argument("--methods", nargs="+", default=["uniform", "none"])
    options = bench.parse()
    for network in options.networks:
        for engine in options.engines:
            for budget in options.budgets:
                for method in options.methods:
                    for multiple in options.round_to if method != PEER else ["1"]:
                        key = {
                            "network": network,
                            "engine": engine,
                            "batch": options.batch,
                            "method": method,
                            "budget": budget,
                            "round_to": multiple,
                        }
                        measure = peers if method == PEER else pruned
                        bench.row(key, partial(measure, options, key))


def pruned(options: argparse.Namespace, key: Mapping[str, str]) -> runner.Row:
    """What the summary of a run says."""
    network = key["network"]
    with TemporaryDirectory() as folder:
        command = [
            str(Path(sys.executable).with_name("lcprune")), "prune", network,
            "--data", f"{__file__}:images{latency.side(network)}",
            "--weights", weights(options.weights, network),
            "--engine", key["engine"], "--latency-batch", str(options.batch),
            "--budget", key["budget"], "--round-to", key["round_to"],
            "--compensation", key["method"], "--trials", "1", "--finetune-epochs", "0",
            "--no-reconstruct", "--search-dtype", "float32", "--recalibrate-images", "64",
            "--fitness-images", "64", "--batch-size", "16", "--remeasure",
            "--out", str(Path(folder) / "run"),
        ]  # fmt: skip
        if key["budget"].startswith("latency"):
            at = (network, key["engine"], options.batch, options.work)
            latency.tabled(*at, 600.0)
            command += ["--latency-table", str(latency.table_file(*at))]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            return {"refused": ended.stderr.splitlines()[-1]}
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
    (times,) = (each for each in summary["latency"] if each["engine"] == key["engine"])
    return {
        "before_ms": round(times["before_ms"], 4),
        "after_ms": round(times["after_ms"], 4),
        "predicted_ms": times["predicted_ms"],
        "macs": round(summary["costs"]["macs"]["ratio"], 4),
        "met": all(cost["met"] for cost in summary["costs"].values()),
    }


def weights(folder: Path | None, network: str) -> str:
    file = folder / plans.published(network) if folder else None
    return str(file) if file and file.exists() else "random"


def images32() -> Data:
    return images(32)


def images224() -> Data:
    return images(224)


def images(side: int) -> Data:
    """Ten classes of noise."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, side, side)
    labels = torch.arange(160) % 10
    train, test = (
        Images(torch.randint(256, (160, *shape), generator=generator, dtype=torch.uint8), labels)
        for _ in range(2)
    )
    names = tuple(map(str, range(10)))
    half = (0.5, 0.5, 0.5)
    return Data(
        train, test, names, half, half, shape, augmentation=Augmentation(crop=0, flip=False)
    )


def peers(options: argparse.Namespace, key: Mapping[str, str]) -> runner.Row:
    """Torch-Pruning's uniform ratio, found by halves, timed in turns with the whole network."""
    import peer

    side = latency.side(key["network"])
    example = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    bound = float(key["budget"].removeprefix("macs=").removesuffix("%")) / 100

    def cut(ratio: float) -> torch.nn.Module:
        torch.manual_seed(0)
        model = build(key["network"], classes=10, input_shape=(3, side, side)).eval()
        if ratio:
            peer.prune(peer.pruner(model, example, ratio, ()), seed=0)
        return model

    whole = flops(cut(0), example)
    low, high = 0.0, 0.9
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if flops(cut(middle), example) <= bound * whole else (middle, high)
        )
    example = example.repeat(options.batch, 1, 1, 1)
    models = {"whole": cut(0), "cut": cut(high)}
    with TemporaryDirectory() as folder:
        times = time_in_turns(
            {
                name: partial(
                    latency.opened(key["engine"], model, example, Path(folder) / name), example
                )
                for name, model in models.items()
            },
            batch=options.batch,
            threads=1,
            seconds=2,
        )
    return {
        "before_ms": round(times["whole"].least_ms, 4),
        "after_ms": round(times["cut"].least_ms, 4),
        "macs": round(flops(models["cut"], example) / flops(models["whole"], example), 4),
        "ratio": round(high, 4),
    }


def flops(model: torch.nn.Module, example: torch.Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(example)
    return int(counter.get_total_flops())


def table(_: argparse.Namespace) -> None:
    """Speeds of the uniform width and of β = 0, and in brackets the share of the MACs."""
    cells: dict[tuple[str, str, int, str, str], dict[str, runner.Row]] = {}
    for row in runner.rows("speed"):
        if row["method"] != PEER:
            key = (row["network"], row["engine"], row["batch"], row["budget"], row["round_to"])
            cells.setdefault(key, {})[row["method"]] = row
    lines = []
    for key, found in cells.items():
        measured = [row for row in found.values() if "before_ms" in row]
        whole = min((row["before_ms"] for row in measured), default=None)
        shown = "–" if whole is None else f"{whole:.3f}"
        lines.append([*key, shown, *(speed(found.get(method)) for method in ("uniform", "none"))])
    for row in runner.rows("speed"):
        if row["method"] == PEER:
            name = [row["network"], row["engine"], row["batch"], row["budget"], "Torch-Pruning"]
            lines.append([*name, f"{row['before_ms']:.3f}", speed(row), "–"])
    head = ["network", "engine", "batch", "budget", "round to", "whole, ms"]
    nothing = [["nothing yet", *["–"] * (len(head) + 1)]]
    print(runner.markdown([*head, "uniform width", "β = 0"], lines or nothing))


def speed(row: runner.Row | None) -> str:
    if row is None:
        return "–"
    if "refused" in row:
        return row["refused"].removeprefix("error: ").split(":")[0].split(" (")[0]
    share = f"{100 * row['macs']:.0f} %"
    return f"{row['before_ms'] / row['after_ms']:.2f}× ({share})"


if __name__ == "__main__":
    main()
