"""What a network is called with is saved with it, and read back within bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lcprune._files import sealed_json
from lcprune.artifact import ARTIFACT, load, read_example, save
from lcprune.artifact._example import parsed, recorded
from lcprune.errors import InputError
from lcprune.ranking import Plan, PlanBuilder
from lcprune.slimming import slim
from lcprune.testing import random_keep
from lcprune.tracing import ExampleInput, Inputs, as_examples, trace


class Net(nn.Module):
    """Takes images however they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def run(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu()).mean((2, 3))


class OfDictionary(Net):
    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"logits": self.run(batch["image"] * batch.get("scale", 1))}


class OfKeywords(Net):
    def forward(self, *, image: Tensor, flip: bool = False, name: str | None = None) -> Tensor:
        assert name in (None, "a")
        return self.run(image.flip(-1) if flip else image)


class OfMany(Net):
    def forward(self, views: list[Tensor], sizes: tuple[int, int], scale: float = 1.0) -> Tensor:
        return self.run(sum(views) * scale)[:, : sizes[0]]


IMAGE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MODELS: dict[str, tuple[type[Net], ExampleInput | None, dict[str, Any]]] = {
    "a dictionary": (OfDictionary, {"image": IMAGE, "scale": 2}, {}),
    "keywords": (OfKeywords, None, {"image": IMAGE, "flip": True, "name": "a"}),
    "nested": (OfMany, ([IMAGE, IMAGE], (2, 3)), {"scale": 0.5}),
    "Inputs": (OfMany, Inputs([IMAGE, IMAGE], (2, 3), scale=3.0), {}),
    "several": (OfDictionary, [{"image": IMAGE}, {"image": torch.ones(2, 3, 9, 9)}], {}),
}


def structure(value: Any) -> Any:
    """Shapes and types in place of tensors."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.dtype)
    if isinstance(value, dict):
        return {key: structure(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(structure(entry) for entry in value)
    return value


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_any_inputs_is_pruned_saved_and_loaded(tmp_path: Path, name: str) -> None:
    kind, example_input, kwargs = MODELS[name]
    model = kind().eval()
    graph = trace(model, example_input, example_kwargs=kwargs)
    keep = random_keep(graph, np.random.default_rng(0))
    plan = PlanBuilder(graph).plan(keep)
    small = slim(model, plan)
    save(small, tmp_path, plan=plan, example_input=example_input, example_kwargs=kwargs)
    back = load(tmp_path, kind())
    given_ = as_examples(example_input, kwargs)[0]
    outputs = [m(*given_.args, **given_.kwargs) for m in (back, small)]
    assert all(map(torch.equal, *[o.values() if isinstance(o, dict) else [o] for o in outputs]))
    example = read_example(tmp_path)
    assert structure([example.args, dict(example.kwargs)]) == structure(
        [given_.args, dict(given_.kwargs)]
    )
    back(*example.args, **example.kwargs)
    for one, two in zip(example.tensors(), read_example(tmp_path).tensors(), strict=True):
        assert torch.equal(one, two)
    classes = json.loads((tmp_path / ARTIFACT).read_text())["classes"]
    assert classes == (2 if kind is OfMany else 4)


FACTORY = """
from pathlib import Path
import torch
from torch import nn
def make(classes, input_shape):
    Path(__file__).with_suffix(".txt").write_text(repr(input_shape))
    return nn.Sequential(nn.Linear(4, 6), nn.Linear(6, classes))
"""


@pytest.mark.parametrize(
    ("example_input", "told"),
    [
        (torch.ones(1, 4), (4,)),
        (torch.ones(2, 5, 4), (5, 4)),
        (torch.ones(1, 3, 8, 4), (3, 8, 4)),
        (torch.ones(1, 3, 2, 2, 4), (3, 2, 2, 4)),
    ],
)
def test_a_foreign_factory_is_told_the_shape_of_any_input(
    tmp_path: Path, example_input: Tensor, told: tuple[int, ...]
) -> None:
    source = tmp_path / "factory.py"
    source.write_text(FACTORY)
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    out = tmp_path / "out"
    options: dict[str, Any] = {"factory": f"{source}:make", "classes": 3}
    save(model, out, plan=Plan({}), example_input=example_input, **options)
    assert torch.equal(load(out, trust_factory=True)(example_input), model(example_input))
    assert source.with_suffix(".txt").read_text() == repr(told)


def test_the_image_among_several_tensors_is_what_a_factory_is_built_for(tmp_path: Path) -> None:
    from lcprune.models import build

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build("digits_resnet", classes=5, input_shape=(2, 8, 8))

        def forward(self, labels: Tensor, batch: dict[str, Tensor]) -> Tensor:
            return self.inner(batch["image"]) + labels[:, None]

    example = (torch.ones(1), {"image": torch.ones(1, 2, 8, 8)})
    wrapped = Wrapped().eval()
    save(wrapped.inner, tmp_path, plan=Plan({}), example_input=example[1]["image"])
    values = json.loads((tmp_path / ARTIFACT).read_text())
    del values["checksum"]
    both = recorded(Inputs(*example))
    values |= {"example": both, "factory": "digits_resnet"}
    (tmp_path / ARTIFACT).write_text(sealed_json(values))
    assert load(tmp_path).conv1.in_channels == 2
    values["example"] = recorded(Inputs(torch.ones(1)))
    (tmp_path / ARTIFACT).write_text(sealed_json(values))
    with pytest.raises(InputError, match="built for images, and the example holds none"):
        load(tmp_path)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from([torch.ones(1), torch.ones(2, 3, dtype=torch.int16), torch.ones(())])
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(-9, 9), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=100)
@given(
    args=st.lists(TREES, max_size=3),
    kwargs=st.dictionaries(st.from_regex("[a-z]{1,4}", fullmatch=True), TREES, max_size=3),
)
def test_any_arguments_come_back(args: list[Any], kwargs: dict[str, Any]) -> None:
    kwargs.pop("self", None)
    back = parsed(json.loads(json.dumps(recorded(Inputs(*args, **kwargs)), allow_nan=False)))
    assert structure([back.args, dict(back.kwargs)]) == structure([tuple(args), kwargs])
    assert all(tensor.is_meta for tensor in back.tensors())


def nested(depth: int) -> Any:
    value: Any = torch.ones(1)
    for _ in range(depth):
        value = [value]
    return value


class Point(NamedTuple):
    x: Tensor


def test_a_named_tuple_is_recorded_as_a_tuple() -> None:
    back = parsed(recorded(Inputs(Point(torch.ones(2)))))
    assert structure(back.args) == ((((2,), torch.float32),),)


@pytest.mark.parametrize(
    "value",
    [
        nested(40), nested(17), ["x" * 1001], [0] * 1001, [10**30], [Ellipsis], [b"x"], [{1, 2}],
        [torch.float32], [1j], [print], {3.5: 1}, {None: 1}, {True: 1}, {(1, 2): 1}, [{"a": {1}}],
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_an_example_that_can_not_be_written_is_refused_before_anything_is(
    tmp_path: Path, value: Any
) -> None:
    class Open(Net):
        def forward(self, x: Tensor, other: Any) -> Tensor:
            return self.run(x)

    with pytest.raises(InputError, match="the example input") as caught:
        save(Open(), tmp_path / "out", plan=Plan({}), example_input=(IMAGE, value))
    assert str(caught.value).isprintable()
    assert not (tmp_path / "out").exists()


ONE = {"tensor": [1, 3, 8, 8], "dtype": "float32"}


def deep(count: int) -> Any:
    raw: Any = ONE
    for _ in range(count):
        raw = {"list": [raw]}
    return raw


WRONG: dict[str, Any] = {
    "null": None, "a number": 3, "a list": [ONE], "nothing": {}, "no kwargs": {"args": []},
    "a third": {"args": [], "kwargs": {}, "more": 1},
    "args as an object": {"args": {}, "kwargs": {}},
    "kwargs as a list": {"args": [], "kwargs": []}, "self": {"args": [], "kwargs": {"self": ONE}},
    **{
        f"part {number}": {"args": [part], "kwargs": {}}
        for number, part in enumerate([
            None, 3, [], {}, {"tensor": [1]}, {"dtype": "float32"}, ONE | {"more": 1},
            ONE | {"tensor": [1, -3]}, ONE | {"tensor": [0]}, ONE | {"tensor": [True]},
            ONE | {"tensor": [1.0]}, ONE | {"tensor": 3}, ONE | {"tensor": [1] * 65},
            ONE | {"tensor": [2**31, 2**31]}, ONE | {"tensor": [10**30]}, ONE | {"tensor": [2**63]},
            ONE | {"tensor": [2**30, 2]}, ONE | {"dtype": "qint8"}, ONE | {"dtype": "nn"},
            ONE | {"dtype": "__class__"}, ONE | {"dtype": 3}, ONE | {"dtype": "\x1b[2J"},
            {"value": [1]}, {"value": {}}, {"value": 10**30}, {"value": "x" * 2000},
            {"float": "1"}, {"float": 1.0}, {"float": None}, {"list": 3}, {"tuple": {"a": ONE}},
            {"dict": {"a": ONE}}, {"dict": [["a"]]}, {"dict": [[None, ONE]]}, {"dict": [[[], ONE]]},
            {"dict": [[True, ONE]]}, {"dict": ["ab"]}, {"dict": [["a", ONE, ONE]]}, {"set": [ONE]},
            {"__class__": "x"}, {"value": 1, "float": "nan"}, deep(17), deep(400),
            {"list": [{"value": 1}] * 1001}, {"list": [ONE | {"tensor": [2**20]}] * 1001},
        ])
    },
}  # fmt: skip


@pytest.mark.parametrize("raw", WRONG.values(), ids=list(WRONG))
def test_security_a_recorded_example_is_bounded(tmp_path: Path, raw: Any) -> None:
    model = OfDictionary()
    save(model, tmp_path, plan=Plan({}), example_input={"image": IMAGE})
    values = json.loads((tmp_path / ARTIFACT).read_text())
    del values["checksum"]
    (tmp_path / ARTIFACT).write_text(sealed_json(values | {"example": raw}))
    for read in (lambda: load(tmp_path, model), lambda: read_example(tmp_path)):
        with pytest.raises(InputError, match="the example") as caught:
            read()
        assert ARTIFACT in str(caught.value)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("factory", ["digits_resnet", "cifar_mobilenet_v2"])
@pytest.mark.parametrize(
    ("shape", "classes"),
    [
        ((1, 2**29, 1, 1), 4), ((1, 5000, 8, 8), 4), ((1, 1, 2**15, 2**14), 4),
        ((1, 1, 8, 8), 2**22), ((1, 1, 8, 8), 2**22 + 1), ((1, 1, 8, 8), 2**40),
        ((1, 1, 8, 8), 3_000_000),
    ],
)  # fmt: skip
def test_security_no_factory_is_asked_for_what_no_memory_holds(
    tmp_path: Path, factory: str, shape: tuple[int, ...], classes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import lcprune.models

    model = lcprune.models.build(factory, classes=4, input_shape=(1, 32, 32))
    save(model, tmp_path, plan=Plan({}), example_input=torch.ones(1, 1, 32, 32), factory=factory)
    values = json.loads((tmp_path / ARTIFACT).read_text())
    del values["checksum"]
    example = {"args": [ONE | {"tensor": list(shape)}], "kwargs": {}}
    (tmp_path / ARTIFACT).write_text(sealed_json(values | {"example": example, "classes": classes}))
    monkeypatch.setattr(lcprune.models, "build", lambda *_, **__: pytest.fail("it was asked"))
    with pytest.raises(InputError, match=r"artifact\.json: .*expected"):
        load(tmp_path)
