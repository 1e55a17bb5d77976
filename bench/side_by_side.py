"""Torch-Pruning on the networks of the zoo, judged by the same oracle. A row for every network.

    python bench/side_by_side.py                      # goes on where it was stopped
    python bench/side_by_side.py --match 'timm/res*'  # some of them, again
    python bench/support_table.py                     # the table of docs/support.md

Half of every group goes, at random, by Torch-Pruning's own call (``peer.py``). What it removed is
read from the tensors that are left (``fingerprints.py``). Its network is compared in float64 with
the original in which these channels are masked, as in ``zoo.py``, which must have run before.
"""

from __future__ import annotations

import gc
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import fingerprints
import peer
import workers
import zoo
import zoo_models
from lcprune.errors import LcpruneError, VerificationError
from lcprune.graph import ChannelGraph
from lcprune.ranking import Plan
from lcprune.slimming import masked_outputs, relative_difference
from lcprune.testing import randomise
from lcprune.tracing import Inputs, outputs, trace

RATIO = 0.5
MOST = 0.9
LEAST_REMOVED = 0.01
STEP_LIMIT = 200
MEMORY_LIMIT = 8
SIZES = (
    "an output of the model",
    "output ",
    "a fixed size",
    "a size",
    "cut at places",
    "cut by an amount",
    "the only channel",
    "the scale of",
)
"""Beginnings of the reasons that tell of a size in the model's code.

Channels that lcprune leaves alone for such a reason still have a masked reading to compare with;
with any other reason (no rule, a statistic across channels) that is not certain.
"""


class PeerError(Exception):
    """Torch-Pruning raised; the row says where and what."""

    def __init__(self, step: str, error: Exception) -> None:
        text = (str(error).strip() or "no message").split("\n")[0][:300]
        super().__init__(f"{type(error).__name__}: {text}")
        self.step = step


def examine(name: str) -> dict[str, Any]:
    """What Torch-Pruning does with a network, and how long both libraries look at it.

    Where it fails on the smallest input that the network admits, the row is that of the
    network's usual input, which is what its users would have.
    """
    _warm_up()
    model = _fresh(name)
    images = zoo_models.example(name, model, torch.Generator().manual_seed(0))
    row = _row(name, images)
    usual = _usual_shape(model, images)
    if row["verdict"] in ("exception", "silently wrong") and usual[-1] > images.shape[-1]:
        row = _row(name, torch.randn(usual, generator=torch.Generator().manual_seed(0)))
    return row


def _usual_shape(model: nn.Module, images: Tensor) -> tuple[int, ...]:
    size = 112 if images.dim() == 5 else 224
    config = getattr(model, "pretrained_cfg", None) or {}
    height, width = config.get("input_size", (3, size, size))[1:]
    return (*images.shape[:-2], height, width)


def _row(name: str, images: Tensor) -> dict[str, Any]:
    gc.collect()  # dependency graphs are cyclic, and memory is counted
    row: dict[str, Any] = {"model": name, "input": list(images.shape), "coverage": None}
    model = _fresh(name)
    start = time.perf_counter()
    try:
        graph = trace(model, images)
        row["trace_seconds"] = round(time.perf_counter() - start, 4)
    except LcpruneError:
        graph = None
    ends = _ends(graph)
    try:
        model = _fresh(name)
        start = time.perf_counter()
        with _step("build graph"):
            peer.build_graph(model, images)
        row["build_seconds"] = round(time.perf_counter() - start, 4)
        row |= _judged(name, images, graph, ends, row)
        row["coverage"] = _least(name, images, ends)
    except PeerError as error:
        row |= {"verdict": "exception", "step": error.step, "why": str(error)}
    return row


def _judged(
    name: str, images: Tensor, graph: ChannelGraph | None, ends: list[str], row: dict[str, Any]
) -> dict[str, Any]:
    """The verdict on half of the channels, and what it rests on."""
    pruned = _fresh(name)
    start = time.perf_counter()
    with _step("prune"):
        made = peer.pruner(pruned, images, RATIO, ends)
    row["pruner_seconds"] = round(time.perf_counter() - start, 4)
    values = fingerprints.mark(pruned)
    with _step("prune"):
        peer.prune(made, seed=0)
    unreadable, kept = "", {}
    try:
        kept = fingerprints.restore(pruned, values)
    except fingerprints.UnreadableError as error:
        unreadable = str(error)
    with _step("forward"):
        _run(pruned.float(), images)  # in the precision that its user sees
    if unreadable:
        return {"verdict": "not judged", "why": unreadable}
    removed = 1 - _macs(pruned, images) / max(1, _macs(_fresh(name), images))
    found: dict[str, Any] = {"removed": round(removed, 4)}
    ours = zoo_row(name)
    found["ours"], found["repaired"] = ours["verdict"], ours.get("repaired", 0)
    if not trusted(ours):
        why = f"no reference: lcprune's own row is {ours['verdict']}"
        return found | _unless_unpruned(removed, why)
    found |= _difference(name, pruned, images, Plan(kept=kept))
    return found | _verdict(found, removed, graph, kept)


def _difference(name: str, pruned: nn.Module, images: Tensor, plan: Plan) -> dict[str, Any]:
    original, double = _fresh(name).double(), images.double()
    try:
        whole = [tensor.clone() for tensor in _run(original, double)]
        masked = masked_outputs(original, plan, Inputs(double))
    except Exception as error:
        return {"unjudged": f"no reference: {type(error).__name__}: {str(error)[:200]}"}
    try:
        error = relative_difference(masked, _run(pruned.double(), double))
    except VerificationError as shapes:
        return {"shapes": str(shapes)[:300]}
    except Exception as raised:
        return {"unjudged": f"float64 only: {type(raised).__name__}: {str(raised)[:200]}"}
    return {"error": error, "effect": relative_difference(whole, masked)}


def _verdict(
    found: dict[str, Any], removed: float, graph: ChannelGraph | None, kept: fingerprints.Kept
) -> dict[str, Any]:
    if "unjudged" in found:
        return _unless_unpruned(removed, found["unjudged"])
    if "error" in found and found["error"] <= zoo.TOLERANCE:
        if found["effect"] > zoo.VISIBLE or removed < LEAST_REMOVED:
            return {"verdict": "unpruned" if removed < LEAST_REMOVED else "right"}
        return {"verdict": "not judged", "why": "masking has no visible effect"}
    if graph is None:
        return _unless_unpruned(removed, "no reference: lcprune does not trace this network")
    if found["repaired"]:
        return _unless_unpruned(removed, "no reference: lcprune's own reading needed repair")
    torn, pinned = _torn(graph, kept), _pinned(graph, kept)
    doubt = [reason for reason in pinned if not reason.startswith(SIZES)]
    if doubt:
        return _unless_unpruned(removed, f"no reference for channels that it removed: {doubt[0]}")
    why = found.get("shapes") or "; ".join([*torn[:1], *pinned[:2]]) or "the output differs"
    return {"verdict": "silently wrong", "why": why, "torn": len(torn)}


def _unless_unpruned(removed: float, why: str) -> dict[str, Any]:
    if removed < LEAST_REMOVED:
        return {"verdict": "unpruned"}
    return {"verdict": "not judged", "why": why}


def _torn(graph: ChannelGraph, kept: fingerprints.Kept) -> list[str]:
    """Groups of coupled channels of which one tensor lost some and another kept them."""
    where: dict[int, tuple[str, str]] = {}
    stays = [""] * graph.prunable
    goes = [""] * graph.prunable
    for dimension in graph.dimensions:
        left = np.ones(len(dimension.channels), dtype=bool)
        if dimension.key in kept:
            left[:] = False
            left[list(kept[dimension.key])] = True
        for group, stay in zip(dimension.channels.tolist(), left.tolist(), strict=True):
            if 0 <= group < graph.prunable:
                place = f"{dimension.tensor}[{dimension.dim}]"
                (stays if stay else goes)[group] = place
                if stays[group] and goes[group]:
                    where.setdefault(group, (goes[group], stays[group]))
    return [
        f"{gone} lost some channels of a group that goes whole (the groups of a norm)"
        if gone == stay
        else f"{gone} lost a channel that {stay} kept"
        for gone, stay in where.values()
    ]


def _pinned(graph: ChannelGraph, kept: fingerprints.Kept) -> list[str]:
    """Why lcprune leaves channels alone that were removed here."""
    found: dict[str, None] = {}
    for key in graph.producers:
        if key in kept:
            channels = np.delete(graph.dimension(*key).channels, list(kept[key]))
            for group in channels[channels >= graph.prunable].tolist():
                found[graph.pinned_reasons[group - graph.prunable]] = None
    return list(found)


def _least(name: str, images: Tensor, ends: list[str]) -> float | None:
    """The share of the MACs that is left when a tenth of every group stays, if that runs."""
    model = _fresh(name)
    try:
        with _step("coverage"):
            peer.prune(peer.pruner(model, images, MOST, ends), seed=0)
            left = _macs(model, images)
    except PeerError:
        return None
    return round(left / max(1, _macs(_fresh(name), images)), 4)


def zoo_row(name: str) -> dict[str, Any]:
    """lcprune's own row on a network, made now where there is none."""
    return _zoo_rows().get(name) or zoo.examine(name)


def trusted(row: dict[str, Any]) -> bool:
    """Whether lcprune's reading of a network has been compared and found exact."""
    return row["verdict"] in ("exact", "exact except", "refused") and (
        row.get("error", 1.0) <= zoo.TOLERANCE and row["effect"] > zoo.VISIBLE
    )


@cache
def _zoo_rows() -> dict[str, dict[str, Any]]:
    return workers.latest("zoo")


def _fresh(name: str) -> nn.Module:
    """The network of ``zoo.py`` with the same random values."""
    torch.manual_seed(0)
    return randomise(zoo_models.build(name), seed=1)


def _ends(graph: ChannelGraph | None) -> list[str]:
    """The modules whose filters are outputs of the model."""
    untouched = graph.untouched if graph is not None else ()
    tensors = [entry.tensor for entry in untouched if zoo.OUTPUT.fullmatch(entry.reason)]
    return sorted({tensor.rpartition(".")[0] for tensor in tensors})


def _run(model: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return outputs(model(images))


def _macs(model: nn.Module, images: Tensor) -> float:
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
        model(images)
    return flops.get_total_flops() / 2


@contextmanager
def _step(step: str) -> Iterator[None]:
    """Turn whatever Torch-Pruning raises, or its asking for too much, into ``PeerError``."""
    start = time.monotonic()

    def look(*_: Any) -> None:
        if time.monotonic() - start > STEP_LIMIT:
            raise TimeoutError(f"took more than {STEP_LIMIT} s")
        if _resident_gib() > MEMORY_LIMIT:
            raise MemoryError(f"took more than {MEMORY_LIMIT} GiB")

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 1, 1)
    try:
        yield
    except Exception as error:
        raise PeerError(step, error) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _resident_gib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30


@cache
def _warm_up() -> None:
    """Let both libraries load what they load once, so that it is in no network's seconds."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    images = torch.zeros(1, 3, 8, 8)
    trace(model.eval(), images)
    peer.build_graph(model, images)


def main() -> None:
    names = zoo_models.names()
    workers.main("torch_pruning", __doc__, names, examine, "not judged", limit=1200)


if __name__ == "__main__":
    main()
