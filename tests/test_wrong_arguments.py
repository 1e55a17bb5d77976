"""Every public function with every wrong argument: one line on what was expected, or it works.

Each parameter of each name in ``lcprune.__all__`` is given each of a list of wrong values, the
others staying right; so is each parameter of the public functions of data, fitness, searching and
training.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import math
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lcprune as lp
from lcprune import data as lpdata
from lcprune import fitness as lpfitness
from lcprune import searching as lpsearching
from lcprune import training as lptraining

X = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    ).eval()  # fmt: skip


@functools.cache
def parts() -> dict[str, Any]:
    """What a search is made of, and what comes out of one."""
    with torch.random.fork_rng():
        model = network()
    graph = lp.trace(model, X[:1])
    saliency, budget = lp.saliency(model, graph, "l2"), lp.Budget(macs=0.6)
    plan = lp.rank(graph, saliency, budget)
    small = lp.slim(model, plan).eval()
    images = lpdata.Images(torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8), Y)
    whole = lpdata.Data(images, images, ("a", "b", "c"), (0.5,), (0.2,), (1, 8, 8))
    return {
        "model": model,
        "graph": graph,
        "saliency": saliency,
        "budget": budget,
        "plan": plan,
        "small": small,
        "images": images,
        "data": whole,
        "example_input": X[:1],
        "fitness": lambda candidate: float(candidate(X).detach().std()),
    }


def given(*names: str, **others: Any) -> Callable[[], dict[str, Any]]:
    """Right arguments, made anew for each call; ``model=small`` and the like are names of parts."""

    def arguments() -> dict[str, Any]:
        found = {name: parts()[name] for name in names}
        for name, value in others.items():
            found[name] = value() if isinstance(value, _Fresh) else value
        if isinstance(found.get("model"), nn.Module):
            found["model"] = lp.slim(found["model"], lp.Plan({}))  # what is trained is a copy
        return found

    return arguments


class _Fresh(functools.partial[Any]):
    """A value that is made for each call."""


def part(name: str) -> _Fresh:
    return _Fresh(lambda: parts()[name])


LOADER = [(X, Y)]
FAST = lp.TrainingConfig(epochs=1)

CALLS: dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]] = {
    "Budget": (lp.Budget, given(macs=0.5)),
    "Budget.parse": (lp.Budget.parse, given(bounds=["macs=50%"])),
    "Budget.limits": (
        lambda before: parts()["budget"].limits(before), given(before={"macs": 10**6})
    ),
    "ChannelGraph.dimension": (
        lambda tensor, dim: parts()["graph"].dimension(tensor, dim), given(tensor="0.weight", dim=0)
    ),
    "ChannelPad": (lp.ChannelPad, given(before=1, after=1)),
    "CostModel": (lp.CostModel, given("graph", resources=("macs",))),
    "CostModel.by_op": (
        lambda keep: lp.CostModel(parts()["graph"]).by_op(keep), given(keep=None)
    ),
    "CostModel.evaluate": (
        lambda keep: lp.CostModel(parts()["graph"]).evaluate(keep), given(keep=None)
    ),
    "Energy": (lp.Energy, given(mac=1.0, byte=2.0)),
    "Saliency": (lp.Saliency, given(values=np.ones(3), criterion="l2", reduction="sum")),
    "TrainingConfig": (lp.TrainingConfig, given(**{f: getattr(FAST, f) for f in vars(FAST)})),
    "bake": (lp.bake, given("model")),
    "export": (
        lp.export, given("example_input", model=part("small"), path="net.pt2", format="pt2")
    ),
    "fit_energy": (
        lp.fit_energy, given("graph", measurements=[({}, 1.0 + n) for n in range(4)])
    ),
    "finetune": (
        lp.finetune, given("model", train_loader=LOADER, val_loader=LOADER, config=FAST)
    ),
    "load": (lp.load, given(directory="no such folder")),
    "rank": (lp.rank, given("graph", "saliency", "budget")),
    "recalibrate": (lp.recalibrate, given("model", batches=[X])),
    "reconstruct": (
        lp.reconstruct,
        given("model", "plan", small=_Fresh(lambda: copy.deepcopy(parts()["small"])), batches=[X]),
    ),
    "repair": (lp.repair, given("model", "graph", "example_input")),
    "saliency": (lp.saliency, given("model", "graph", criterion="taylor", data=LOADER)),
    "save": (lp.save, given("small", "plan", "example_input", directory="saved", factory=None)),
    "search": (
        lp.search,
        given("model", "graph", "saliency", "budget", "fitness", recalibrate=[X], trials=2),
    ),
    "slim": (lp.slim, given("model", "plan")),
    "trace": (lp.trace, given("model", "example_input")),
    "verify": (lp.verify, given("model", "small", "plan", "example_input")),
    # The stages' own, whose owners keep the same promise.
    "Augmentation": (lpdata.Augmentation, given(crop=1, flip=True, area=None)),
    "Data": (
        lpdata.Data,
        given(
            train=part("images"),
            test=part("images"),
            classes=("a", "b", "c"),
            mean=(0.5,),
            std=(0.2,),
            input_shape=(1, 8, 8),
        ),
    ),
    "ImageFiles": (
        lpdata.ImageFiles,
        given(files=[Path("/a.png")], labels=torch.tensor([0]), size=8, resized=9, workers=0),
    ),
    "Images": (lpdata.Images, given(pixels=torch.ones(2, 1, 2, 2).byte(), labels=Y[:2])),
    "hold_out": (lpdata.hold_out, given("data", every=2)),
    "load_data": (lpdata.load_data, given(spec="digits")),
    "search_split": (lpdata.search_split, given(count=9, recalibrate=2, validate=3, seed=0)),
    "standard_augmentation": (lpdata.standard_augmentation, given(shape=(1, 8, 8))),
    "training_batches": (lpdata.training_batches, given("images", "data", batch=2)),
    "CrossEntropy": (lpfitness.CrossEntropy, given(images=X, labels=Y, batch=2)),
    "Precision": (lpfitness.Precision, given(dtype="float32", channels_last=False, batch=2)),
    "choose_precision": (
        lpfitness.choose_precision, given("model", images=X, seconds=0.0, batches=(2,))
    ),
    "Evolution": (lpsearching.Evolution, given(ranker=_Fresh(lambda: ranker()), trials=3)),
    "RandomSearch": (lpsearching.RandomSearch, given(ranker=_Fresh(lambda: ranker()), trials=3)),
    "Auto": (lpsearching.Auto, given(ranker=_Fresh(lambda: ranker()), trials=3)),
    "RayExecutor": (lpsearching.RayExecutor, given(workers=1)),
    "evaluate_top1": (lptraining.evaluate_top1, given("model", "images", "data", batch=2)),
    "find_learning_rate": (
        lptraining.find_learning_rate, given("model", loader=LOADER, config=FAST, steps=7)
    ),
    "try_plans": (
        lptraining.try_plans,
        given(
            plans=_Fresh(lambda: [parts()["plan"]]),
            cut=lambda plan: lp.slim(parts()["model"], plan),
            loader=LOADER,
            steps=1,
            judge=lambda model: 1.0,
        ),
    ),
}  # fmt: skip

VALUES_ALONE = {"ChannelGraph", "Inputs", "Plan", "SearchResult", "Trial"}
"""Public names that hold what they are given, or take anything: what reads them checks."""


def ranker() -> Any:
    from lcprune.ranking import Ranker

    return Ranker(parts()["graph"], parts()["saliency"], parts()["budget"])


class Odd:
    """Of no kind that anything expects."""

    def __repr__(self) -> str:
        return "an\nodd\x1b[31m thing"


WRONG: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "text": lambda: "no such\nthing",
    "no text": lambda: "",
    "bytes": lambda: b"\0",
    "true": lambda: True,
    "zero": lambda: 0,
    "negative": lambda: -1,
    "beyond 64 bits": lambda: 10**400,
    "half": lambda: 0.5,
    "NaN": lambda: math.nan,
    "infinity": lambda: math.inf,
    "huge": lambda: 1e300,
    "complex": lambda: 1j,
    "empty list": list,
    "empty tuple": tuple,
    "empty dictionary": dict,
    "list of none": lambda: [None],
    "list of texts": lambda: ["a", "b"],
    "odd": Odd,
    "class": lambda: nn.Linear,
    "function": lambda: lambda *args, **kwargs: None,
    "failing function": lambda: _fails,
    "module": lambda: nn.Linear(3, 2),
    "meta module": lambda: nn.Conv2d(1, 2, 3, device="meta"),
    "lazy module": lambda: nn.LazyConv2d(2, 3),
    "module in itself": lambda: knotted(),
    "graph": lambda: parts()["graph"],
    "model": lambda: parts()["model"],
    "plan": lambda: parts()["plan"],
    "saliency": lambda: parts()["saliency"],
    "budget": lambda: parts()["budget"],
    "images": lambda: X,
    "one number": lambda: torch.tensor(1.0),
    "NaN images": lambda: X * math.nan,
    "no images": lambda: X[:0],
    "integers": lambda: Y,
    "sparse": lambda: X[0, 0].to_sparse(),
    "meta": lambda: X.to("meta"),
    "array": lambda: np.ones(3),
    "objects": lambda: np.array([None, "a"], dtype=object),
    "root": lambda: Path("/"),
    "array of texts": lambda: np.array(["a", "b"]),
    "list in itself": lambda: knot(),
    "path": lambda: Path("nowhere") / ("x" * 300),
    "empty batches": lambda: [X[:0]],
    "batches of another shape": lambda: [X[:, :, 0]],
    "batches that are no pairs": lambda: [(X, Y, Y)],
    "batches with wrong labels": lambda: [(X, Y + 99)],
    "batches with real labels": lambda: [(X, Y + 0.5)],
    "batches with fewer labels": lambda: [(X, Y[:2])],
    "failing iterator": lambda: _Failing(),
}


def knot() -> list[Any]:
    held: list[Any] = []
    held.append(held)
    return held


def knotted() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    model[0].add_module("whole", model)
    return model


def _fails(*args: Any, **kwargs: Any) -> Any:
    raise OwnError("of the caller's own")


SECONDS = 30
"""That no call here needs, on however busy a machine."""


class OwnError(Exception):
    """What a caller's function raises comes through as it is."""


class _Failing:
    def __iter__(self) -> Iterator[Any]:
        raise OwnError("of the caller's own")


def parameters(call: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in inspect.signature(call).parameters.values() if p.kind in kinds]


def outcome(call: Callable[..., Any], arguments: dict[str, Any]) -> str:
    """Empty where it worked or said in one line what was expected; else what it did."""
    # An alarm rather than a thread: it ends a loop that has no end.
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        call(**arguments)
    except OwnError:
        return ""
    except lp.LcpruneError as error:
        return "" if str(error).isprintable() and str(error) else f"not one line: {error!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ")[:150]
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return ""


def _too_long(*_: object) -> None:
    raise TimeoutError(f"not done after {SECONDS} seconds")


OWN_CODE = {"loss", "fitness", "prepare", "strategy", "cut", "judge"} | {
    "on_epoch", "on_step", "on_trial", "recalibrate",
}  # fmt: skip
"""Parameters that take a function: what that raises, wrong as it may be, is the caller's own."""
CALLABLE = {"class", "module", "meta module", "lazy module", "module in itself", "model"}


def test_every_public_name_is_tried() -> None:
    errors = {n for n in lp.__all__ if isinstance(getattr(lp, n), type)
              and issubclass(getattr(lp, n), lp.LcpruneError | Warning)}  # fmt: skip
    assert set(lp.__all__) - errors - VALUES_ALONE - {"compose", "measure"} <= set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_right_arguments_work(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, arguments = CALLS[name]
    if name == "load":
        pytest.skip("needs what save wrote")
    assert call(**arguments()) is not NotImplemented


def thorough(name: str) -> Any:
    """Those that train or run models for each value take half a minute."""
    slow = name in ("export", "repair", "search", "trace", "saliency", "verify")
    return pytest.param(name, marks=pytest.mark.thorough) if slow else name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [thorough(name) for name in CALLS])
def test_wrong_arguments(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, arguments = CALLS[name]
    faults = []
    with torch.random.fork_rng():
        for parameter in parameters(call):
            for kind, make in WRONG.items():
                if parameter in OWN_CODE and kind in CALLABLE:
                    continue
                found = outcome(call, arguments() | {parameter: make()})
                if found:
                    faults.append(f"{name}({parameter}={kind}): {found}")
    assert not faults, "\n" + "\n".join(faults)


def test_what_can_not_be_copied_is_refused_in_a_line() -> None:
    """By everything that works on a copy: locks, generators and open files can't be."""
    whole = parts()
    model = copy.deepcopy(whole["model"])
    model.lock = threading.Lock()
    calls: dict[str, Callable[[], object]] = {
        "trace": lambda: lp.trace(model, whole["example_input"]),
        "saliency": lambda: lp.saliency(model, whole["graph"], "taylor", data=LOADER),
        "slim": lambda: lp.slim(model, whole["plan"]),
        "verify": lambda: lp.verify(model, whole["small"], whole["plan"], X),
        "teacher": lambda: lp.finetune(
            copy.deepcopy(whole["small"]), LOADER, teacher=model, config=FAST
        ),
        "range test": lambda: lptraining.find_learning_rate(model, LOADER, config=FAST, steps=7),
        "average": lambda: lp.finetune(model, LOADER, config=dataclasses.replace(FAST, ema=0.5)),
    }
    for name, call in calls.items():
        with pytest.raises(lp.InputError, match=r"can't be copied.*lock") as caught:
            call()
        assert "\n" not in str(caught.value), name
