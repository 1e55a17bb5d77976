"""Calls of the library: one argument of a right call is of a wrong kind, or out of its range."""

# ruff: noqa: E501 (lists of values are read across)

from __future__ import annotations

import inspect
import random
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzing.bases import Bases
from fuzzing.hostile import BUDGETS, NAMES, bytes_of
from fuzzing.tries import Ground, Try

Maker = Callable[[], Any]

SKIPPED = {("save", "directory"), ("finetune", "processes")}
"""What would write anywhere, and what would start processes."""


ENDLESS = {"trials", "epochs", "plans", "finalists", "before", "after"}
"""Parameters of which a large number is right, and takes for ever, or all memory."""


FUNCTIONS = {"fitness", "prepare", "recalibrate", "on_epoch", "on_step", "on_trial", "strategy"}
"""Parameters that take a function of the user's: what it raises is the user's to see."""


class Calls:
    """The surface."""

    def __init__(self, ground: Ground, seed: int, bases: Bases) -> None:
        import lcprune as lp

        self._ground, self._saved = ground, bases.run("saved")
        self._world = World(self._saved)
        self._calls = self._world.calls()
        self._cases = []
        for name, (function, given) in self._calls.items():
            names = [*given, *(p for p in parameters(function) if p not in given)]
            self._cases += [(name, p) for p in names if (name, p) not in SKIPPED]
        chance = random.Random(seed)
        chance.shuffle(self._cases)
        self._values = values(self._world, ground)
        self.covered = {name.split(" ")[0].split(".")[0] for name in self._calls} & set(lp.__all__)

    def make(self, number: int, chance: random.Random, folder: Path) -> Try:
        """The try of this number."""
        if number % 20 == 19:
            return self._text(chance)
        name, parameter = self._cases[number % len(self._cases)]
        function, given = self._calls[name]
        label = chance.choice(list(self._values))
        if label == "2**31" and parameter in ENDLESS:
            label = "10**400"
        own = self._world.own(name, parameter, chance)
        if own is not None and chance.random() < 0.4:
            label, make = own
        else:
            make = self._values[label]

        def call() -> object:
            arguments = {key: maker() for key, maker in given.items()}
            # What has no name is the positional arguments.
            arguments[parameter] = make() if parameter else (make(),)
            if parameter in FUNCTIONS and callable(arguments[parameter]):
                arguments[parameter] = of_the_user(arguments[parameter])
            return called(function, arguments)

        return Try(f"{name}, {parameter} is {label}", call=call)

    def _text(self, chance: random.Random) -> Try:
        """Texts that are read: plans, bounds."""
        import lcprune as lp

        if chance.random() < 0.5:
            how, content = bytes_of(chance, self._world.plan.to_json().encode())
            text = content.decode("utf-8", "replace")
            return Try(f"Plan.from_json, {how}", call=lambda: lp.Plan.from_json(text))
        bounds = [chance.choice(BUDGETS) for _ in range(chance.choice((1, 2)))]

        def call() -> object:
            budget = lp.Budget.parse(bounds)
            return lp.rank(self._world.graph, self._world.saliency, budget)

        return Try(f"Budget.parse({bounds!r}), rank", call=call)


def parameters(function: Callable[..., Any]) -> list[str]:
    """Names of what a function takes by name."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in found if p.kind in kinds and p.name != "self"]


def called(function: Callable[..., Any], arguments: dict[str, Any]) -> object:
    """Call by name, but for what has no name; read to its end what is read later."""
    positional = arguments.pop("", ())
    result = function(*positional, **arguments)
    if isinstance(result, types.GeneratorType):
        return list(result)
    return result


class World:
    """A network, its graph and all else that right calls take."""

    def __init__(self, saved: Path) -> None:
        import torch
        from torch import nn

        import lcprune as lp
        from lcprune.models import build

        torch.manual_seed(0)
        self.torch, self.nn, self.lp, self.saved = torch, nn, lp, saved
        self.model = build("digits_resnet", classes=10, input_shape=(1, 8, 8)).eval()
        self.images = torch.randn(2, 1, 8, 8)
        self.graph = lp.trace(self.model, self.images)
        self.saliency = lp.saliency(self.model, self.graph, "l2")
        self.budget = lp.Budget(macs=0.5)
        self.plan = lp.rank(self.graph, self.saliency, self.budget)
        self.small = lp.slim(self.model, self.plan)
        self.batches = [(torch.randn(4, 1, 8, 8), torch.arange(4))]
        self.other = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
        self.other_graph = lp.trace(self.other, self.images)
        self.result: Any = None

    def fitness(self, model: Any) -> float:
        """A sum of outputs."""
        return float(model(self.images).sum())

    def calls(self) -> dict[str, tuple[Callable[..., Any], dict[str, Maker]]]:
        """A right call of each function, by name and what it is called with."""
        lp, of = self.lp, Lazily(self)
        found: dict[str, tuple[Callable[..., Any], dict[str, Maker]]] = {
            "trace": (lp.trace, {"model": of.model, "example_input": of.images}),
            "repair": (lp.repair, {"model": of.model, "graph": of.graph, "example_input": of.images}),
            "saliency": (lp.saliency, {"model": of.model, "graph": of.graph, "criterion": lambda: "l2"}),
            "saliency taylor": (
                lp.saliency,
                {"model": of.model, "graph": of.graph, "criterion": lambda: "taylor", "data": of.batches},
            ),
            "rank": (lp.rank, {"graph": of.graph, "saliency": of.saliency, "budget": of.budget}),
            "slim": (lp.slim, {"model": of.model, "plan": of.plan}),
            "verify": (
                lp.verify,
                {"model": of.model, "small": of.small, "plan": of.plan, "example_input": of.images},
            ),
            "bake": (lp.bake, {"model": of.model}),
            "recalibrate": (lp.recalibrate, {"model": of.small, "batches": of.batches}),
            "search": (
                lp.search,
                {
                    "model": of.model, "graph": of.graph, "saliency": of.saliency, "budget": of.budget,
                    "fitness": lambda: self.fitness, "trials": lambda: 2,
                },
            ),
            "search auto": (
                lp.search,
                {
                    "model": of.model, "graph": of.graph, "saliency": of.saliency, "budget": of.budget,
                    "fitness": lambda: self.fitness, "trials": lambda: 2, "strategy": lambda: "auto",
                    "recalibrate": of.batches, "journal": lambda: "search.sqlite",
                },
            ),
            "finetune": (
                lp.finetune,
                {
                    "model": of.small, "train_loader": of.batches, "val_loader": of.batches,
                    "config": lambda: lp.TrainingConfig(epochs=1),
                },
            ),
            "finetune teacher": (
                lp.finetune,
                {
                    "model": of.small, "train_loader": of.batches, "teacher": of.model,
                    "config": lambda: lp.TrainingConfig(epochs=1),
                },
            ),
            "save": (
                lp.save,
                {
                    "small": of.small, "directory": lambda: "out", "plan": of.plan,
                    "example_input": of.images, "factory": lambda: "digits_resnet", "classes": lambda: 10,
                },
            ),
            "load": (lp.load, {"directory": lambda: self.saved, "model": of.model}),
            "load factory": (lp.load, {"directory": lambda: str(self.saved)}),
            "Budget": (
                lambda **b: lp.rank(self.graph, self.saliency, lp.Budget(**b)),
                {"macs": lambda: 0.5, "params": lambda: None, "weights": lambda: None,
                 "activations": lambda: None, "flops": lambda: None},
            ),
            "Budget.parse": (lp.Budget.parse, {"bounds": lambda: ["macs=50%"]}),
            "Budget.limits": (lambda before: self.budget.limits(before), {"before": lambda: {"macs": 5}}),
            "CostModel": (lp.CostModel, {"graph": of.graph}),
            "CostModel.evaluate": (lambda keep: lp.CostModel(self.graph).evaluate(keep), {"keep": lambda: None}),
            "CostModel.by_op": (lambda keep: lp.CostModel(self.graph).by_op(keep), {"keep": lambda: None}),
            "TrainingConfig": (lambda **c: self._trained(lp.TrainingConfig(**c)), {"epochs": lambda: 1}),
            "ChannelPad": (
                lambda before, after: lp.ChannelPad(before, after)(self.images),
                {"before": lambda: 1, "after": lambda: 2},
            ),
            "Plan": (
                lambda **p: (lp.slim(self.model, lp.Plan(**p)), lp.Plan(**p).digest),
                {"kept": lambda: dict(self.plan.kept), "attributes": lambda: self.plan.attributes},
            ),
            "Plan.from_json": (lp.Plan.from_json, {"text": lambda: self.plan.to_json()}),
            "Saliency": (
                lambda **s: lp.rank(self.graph, lp.Saliency(**s), self.budget),
                {"values": lambda: self.saliency.values, "criterion": lambda: "l2", "reduction": lambda: "sum"},
            ),
            "ChannelGraph.dimension": (
                lambda tensor, dim: self.graph.dimension(tensor, dim),
                {"tensor": lambda: self.graph.producers[0][0], "dim": lambda: 0},
            ),
        }  # fmt: skip
        further = {
            "compose": {"first": of.plan, "second": of.plan},
            "Inputs": {"": lambda: (self.images,)},
        }
        for name, given in further.items():
            if name in lp.__all__:
                found[name] = (getattr(lp, name), given)
        return found

    def _trained(self, config: Any) -> Any:
        return self.lp.finetune(self.small, self.batches, config=config)

    def own(self, name: str, parameter: str, chance: random.Random) -> tuple[str, Maker] | None:
        """A value that is nearly right for a parameter."""
        torch, nn, lp = self.torch, self.nn, self.lp
        pools: dict[str, dict[str, Maker]] = {
            "model": {
                "another network": lambda: self.other,
                "the small one": lambda: self.small,
                "a network without parameters": lambda: nn.ReLU(),
                "an empty network": lambda: nn.Sequential(),
                "a lazy network": lambda: nn.Sequential(nn.LazyConv2d(4, 3)),
                "a network on meta": lambda: nn.Conv2d(1, 4, 3, device="meta"),
                "a network of NaN": lambda: filled(self.copy(), float("nan")),
                "a network of infinity": lambda: filled(self.copy(), float("inf")),
                "a network of integers": lambda: nn.Embedding(5, 3),
                "a scripted network": lambda: torch.jit.script(self.other),
                "a compiled network": lambda: torch.compile(self.other),
                "DataParallel": lambda: nn.DataParallel(self.other),
                "a class of networks": lambda: nn.Conv2d,
                "a half network": lambda: self.copy().half(),
                "a double network": lambda: self.copy().double(),
                "a complex network": lambda: nn.Conv2d(1, 4, 3, dtype=torch.complex64),
                "a network that raises": lambda: Raising(),
                "a network that returns None": lambda: nn.Module(),
                "a network that holds itself": lambda: knotted(),
                "a network with a hook": lambda: hooked(self.copy()),
                "a network in inference mode": lambda: inferred(self.copy),
                "a network of shared layers": lambda: nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1)] * 2),
                "a network that can't be copied": lambda: uncopied(self.copy()),
                "a quantised network": lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 8))),
            },
            "example_input": {
                "no image": lambda: torch.randn(0, 1, 8, 8), "three channels": lambda: torch.randn(1, 3, 8, 8),
                "one pixel": lambda: torch.randn(1, 1, 1, 1), "no batch": lambda: torch.randn(1, 8, 8),
                "of integers": lambda: torch.ones(1, 1, 8, 8, dtype=torch.int64), "NaN": lambda: torch.full((1, 1, 8, 8), float("nan")),
                "double": lambda: torch.randn(1, 1, 8, 8).double(), "half": lambda: torch.randn(1, 1, 8, 8).half(),
                "on meta": lambda: torch.randn(1, 1, 8, 8, device="meta"), "two": lambda: (self.images, self.images),
                "an empty tuple": lambda: (), "a list": lambda: [self.images], "a dict": lambda: {"input": self.images},
                "with a gradient": lambda: torch.randn(1, 1, 8, 8, requires_grad=True), "sparse": lambda: self.images.to_sparse(),
                "of inference": lambda: in_inference(torch), "a nested tuple": lambda: ((self.images,),), "complex": lambda: self.images.to(torch.complex64),
            },
            "graph": {"of another network": lambda: self.other_graph, "the plan": lambda: self.plan},
            "saliency": {
                "of another network": lambda: lp.Saliency(self.saliency.values[:3], "l2", "sum"),
                "NaN": lambda: lp.Saliency(self.saliency.values * float("nan"), "l2", "sum"),
                "its values": lambda: self.saliency.values, "a list": lambda: self.saliency.values.tolist(),
                "of two dims": lambda: lp.Saliency(self.saliency.values[None], "l2", "sum"),
                "texts": lambda: lp.Saliency(self.saliency.values.astype(str), "l2", "sum"),
            },
            "budget": {
                "a number": lambda: 0.5, "a text": lambda: "macs=50%", "a dict": lambda: {"macs": 0.5},
                "none at all": lambda: lp.Budget(), "nothing": lambda: lp.Budget(macs=0),
                "of NaN": lambda: lp.Budget(macs=float("nan")), "less than nothing": lambda: lp.Budget(macs=-1),
            },
            "plan": {
                "of another network": lambda: lp.rank(self.other_graph, lp.saliency(self.other, self.other_graph, "l2"), lp.Budget(macs=0.5)),
                "its JSON": lambda: self.plan.to_json(), "the graph": lambda: self.graph, "its kept": lambda: dict(self.plan.kept),
                **{f"kept by {i}": (lambda i=i: self.odd_plan(i)) for i in range(22)},
            },
            "fitness": {f"a function that returns {v!r}": (lambda v=v: (lambda model: v)) for v in (
                None, "x", float("nan"), float("inf"), -float("inf"), [], 10**400, 1j, True, b"1")},
            "batches": {
                "empty": list, "an empty batch": lambda: [(torch.randn(0, 1, 8, 8), torch.arange(0))],
                "images alone": lambda: [torch.randn(2, 1, 8, 8)], "of another shape": lambda: [(torch.randn(2, 3, 8, 8), torch.arange(2))],
                "labels out of range": lambda: [(torch.randn(2, 1, 8, 8), torch.tensor([5, 99]))],
                "negative labels": lambda: [(torch.randn(2, 1, 8, 8), torch.tensor([-5, 1]))],
                "labels of text": lambda: [(torch.randn(2, 1, 8, 8), ["a", "b"])], "fewer labels": lambda: [(torch.randn(4, 1, 8, 8), torch.arange(2))],
                "labels that are floats": lambda: [(torch.randn(2, 1, 8, 8), torch.rand(2))], "of NaN": lambda: [(torch.full((2, 1, 8, 8), float("nan")), torch.arange(2))],
                "one image": lambda: [(torch.randn(1, 1, 8, 8), torch.arange(1))], "None in it": lambda: [None], "three each": lambda: [(self.images, self.images, self.images)],
                "a spent iterator": lambda: iter([]), "a generator": lambda: (b for b in self.batches), "an endless one": lambda: 5,
                "a dict each": lambda: [{"x": self.images}], "a tuple of none": lambda: [()], "a tensor": lambda: self.images, "of uint8": lambda: [(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.arange(2))],
            },
            "keep": {
                "short": lambda: self.keep()[:3], "long": lambda: self.keep().repeat(2), "of numbers": lambda: self.keep().astype(int),
                "a list": lambda: self.keep().tolist(), "of two dims": lambda: self.keep()[None], "a tensor": lambda: torch.ones(self.graph.prunable, dtype=torch.bool),
                "all removed": lambda: ~self.keep(),
            },
            "values": {"short": lambda: self.saliency.values[:2], "NaN": lambda: self.saliency.values * float("nan"), "inf": lambda: self.saliency.values + float("inf"),
                       "of two dims": lambda: self.saliency.values[None], "integers": lambda: self.saliency.values.astype(int), "a list": lambda: self.saliency.values.tolist(),
                       "a tensor": lambda: torch.tensor(self.saliency.values), "complex": lambda: self.saliency.values + 1j, "objects": lambda: self.saliency.values.astype(object)},
            "beta": {"short": lambda: [0.0], "NaN": lambda: [float("nan")] * len(self.graph.families), "texts": lambda: ["x"] * len(self.graph.families),
                     "ragged": lambda: [[0.0], [0.0, 1.0]], "a dict": lambda: dict(self.plan.latent), "inf": lambda: [float("inf")] * len(self.graph.families)},
        }  # fmt: skip
        alike = {"small": "model", "teacher": "model", "data": "batches", "train_loader": "batches",
                 "val_loader": "batches", "recalibrate": "batches", "first": "plan", "second": "plan",
                 "training_inputs": "example_input", "text": "names"}  # fmt: skip
        pool = pools.get(alike.get(parameter, parameter))
        if pool is None:
            word = chance.choice(NAMES)
            return (repr(word[:30]), lambda: word)
        label = chance.choice(list(pool))
        return label, pool[label]

    def keep(self) -> Any:
        import numpy as np

        return np.ones(self.graph.prunable, dtype=bool)

    def copy(self) -> Any:
        import copy

        return copy.deepcopy(self.model)

    def odd_plan(self, kind: int) -> Any:
        """A plan of which one thing is wrong."""
        from dataclasses import replace

        plan = self.plan
        kept: dict[Any, Any] = dict(plan.kept)
        key = next(iter(kept))
        name, _dim = key
        size = len(kept[key])
        edits: list[dict[str, Any]] = [
            {"kept": {**kept, key: (-1, *kept[key][1:])}}, {"kept": {**kept, key: (*kept[key][:-1], 10**6)}},
            {"kept": {**kept, key: ()}}, {"kept": {**kept, key: kept[key][::-1]}},
            {"kept": {**kept, key: kept[key][:1] * size}}, {"kept": {(name, 99): kept[key]}},
            {"kept": {(name, -9): kept[key]}}, {"kept": {("nosuch", 0): (0,)}}, {"kept": {name: kept[key]}},
            {"kept": {key: None}}, {"kept": {key: "abc"}}, {"kept": {key: (0.5,)}}, {"kept": {key: (2**63,)}},
            {"kept": []}, {"kept": None}, {"attributes": None}, {"attributes": (1, 2)},
            {"attributes": tuple(replace(a, value="x") for a in plan.attributes[:1])},
            {"attributes": tuple(replace(a, name="__class__") for a in plan.attributes[:1])},
            {"attributes": tuple(replace(a, module="nosuch") for a in plan.attributes[:1])},
            {"attributes": tuple(replace(a, value=-(2**63)) for a in plan.attributes[:1])},
            {"kept": {(1, 2): (0,)}},
        ]  # fmt: skip
        return replace(plan, **edits[kind % len(edits)])


class Lazily:
    """Attributes of the world as functions without arguments."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Maker:
        return lambda: getattr(self._world, name)


def values(world: World, ground: Ground) -> dict[str, Maker]:
    """Values of every kind, by what they are called."""
    import numpy as np

    torch, nn = world.torch, world.nn

    def closed() -> Any:
        generator = (i for i in range(3))
        generator.close()
        return generator

    def knot() -> Any:
        held: list[Any] = []
        held.append(held)
        return held

    plain: dict[str, Any] = {
        "None": None, "True": True, "False": False, "0": 0, "-1": -1, "1": 1, "2": 2, "2**31": 2**31, "2**63": 2**63,
        "-2**63-1": -(2**63) - 1, "10**400": 10**400, "0.0": 0.0, "0.5": 0.5, "-0.5": -0.5, "1.5": 1.5, "1e300": 1e300,
        "1e-320": 1e-320, "nan": float("nan"), "inf": float("inf"), "-inf": -float("inf"), "1j": 1j, "an empty text": "",
        "x": "x", "a text of escapes": "\x1b[31mred\nsecond", "a text of markup": "[/b]", "a long text": "x" * 100_000,
        "NUL": "a\0b", "a surrogate": "\udce9", "bytes": b"bytes", "[]": [], "[None]": [None], "['x']": ["x"], "[1, 'x']": [1, "x"],
        "[-1]": [-1], "[0.5]": [0.5], "[[]]": [[]], "{}": {}, "{'a': 1}": {"a": 1}, "{None: None}": {None: None}, "()": (), "(None,)": (None,),
        "a set": {1, 2}, "a class": int, "an object": object(), "a range": range(3), "Ellipsis": ..., "NotImplemented": NotImplemented,
        "a path": Path("nosuch"), "a path to a folder": Path("/"), "a module": random, "a lambda": lambda *a, **k: None, "print": print,
        "a lambda without arguments": lambda: None, "a type of network": nn.Module, "an exception": ValueError("x"), "a dtype": torch.float32,
        "a device": torch.device("cpu"), "a date": __import__("datetime").date(2020, 1, 1), "a fraction": __import__("fractions").Fraction(1, 3),
        "a decimal": __import__("decimal").Decimal("NaN"), "a memoryview": memoryview(b"x"), "a slice": slice(None), "a generator of torch": torch.Generator(),
    }  # fmt: skip
    made: dict[str, Maker] = {
        "an empty tensor": lambda: torch.empty(0), "a tensor": lambda: torch.ones(3), "a scalar tensor": lambda: torch.tensor(float("nan")),
        "a tensor of integers": lambda: torch.arange(4), "a complex tensor": lambda: torch.ones(3, dtype=torch.complex64),
        "a meta tensor": lambda: torch.empty(3, device="meta"), "a sparse tensor": lambda: torch.eye(3).to_sparse(), "a tensor of 6 dims": lambda: torch.ones(1, 1, 1, 1, 1, 1),
        "a quantised tensor": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "a tensor of truth": lambda: torch.ones(3, dtype=torch.bool),
        "an image": lambda: world.images, "an array": lambda: np.ones(3), "an array of texts": lambda: np.array(["a", "b"]), "an array of objects": lambda: np.array([None, {}], dtype=object),
        "an empty array": lambda: np.empty(0), "an array of dates": lambda: np.array(["2020-01-01"], dtype="datetime64[D]"), "a NumPy number": lambda: np.float64("nan"), "a NumPy integer": lambda: np.int64(2),
        "a closed generator": closed, "a spent iterator": lambda: iter(()), "an iterator of None": lambda: iter([None]), "an endless iterator": lambda: 7,
        "a list that holds itself": knot, "a network": lambda: world.model, "another network": lambda: world.other, "the small network": lambda: world.small,
        "a graph": lambda: world.graph, "a plan": lambda: world.plan, "a saliency": lambda: world.saliency, "a budget": lambda: world.budget, "batches": lambda: world.batches,
        "an open file": lambda: Path("/dev/null").open(),  # noqa: SIM115
        "a module list": lambda: nn.ModuleList(), "a parameter": lambda: nn.Parameter(torch.ones(2)), "a state dict": lambda: world.model.state_dict(),
        "a function of a network": lambda: world.fitness, "a config": lambda: world.lp.TrainingConfig(), "an optimiser": lambda: torch.optim.SGD(world.small.parameters(), 0.1),
        "a pipe": lambda: fifo(), "a folder": lambda: Path(), "a path of NUL": lambda: Path("a\0b"), "the canary": lambda: str(ground.precious), "the saved network": lambda: world.saved,
    }  # fmt: skip
    return {**{label: (lambda v=v: v) for label, v in plain.items()}, **made}


def of_the_user(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that can be called, as one that a user wrote here."""
    return lambda *args, **kwargs: function(*args, **kwargs)


def fifo() -> Path:
    import os

    path = Path("pipe")
    if not path.exists():
        os.mkfifo(path)
    return path


def filled(model: Any, value: float) -> Any:
    for parameter in model.parameters():
        parameter.data.fill_(value)
    return model


def knotted() -> Any:
    from torch import nn

    model = nn.Sequential(nn.Conv2d(1, 4, 3))
    model._modules["self"] = model
    return model


def hooked(model: Any) -> Any:
    model.register_forward_hook(lambda *a: None)
    model.register_forward_pre_hook(lambda *a: None)
    return model


def inferred(make: Callable[[], Any]) -> Any:
    import torch

    with torch.inference_mode():
        return make()


def in_inference(torch: Any) -> Any:
    with torch.inference_mode():
        return torch.randn(1, 1, 8, 8)


def uncopied(model: Any) -> Any:
    model.lock = __import__("threading").Lock()
    return model


def Raising() -> Any:  # noqa: N802
    """A network that raises."""
    from torch import nn

    class Raises(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)

        def forward(self, x: Any) -> Any:
            raise KeyError("\x1b[31mwhy\nsecond")

    return Raises()
