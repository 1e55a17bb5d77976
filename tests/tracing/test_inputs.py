"""What a model is called with: in containers of any kind, by keyword, several, in batches."""

from __future__ import annotations

import collections
import dataclasses
import gc
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lcprune.errors import InputError, ModelError
from lcprune.tracing import Inputs, as_examples, first_sample, inputs_for_training, trace

IMAGE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MASK = torch.ones(1, 1, 8, 8)


class Pair(NamedTuple):
    image: Tensor
    mask: Tensor


@dataclasses.dataclass(frozen=True)
class Sample:
    image: Tensor
    mask: Tensor
    name: str = "a"


@dataclasses.dataclass(slots=True)
class Slotted:
    image: Tensor
    mask: Tensor


class Encoding(collections.UserDict):  # type: ignore[type-arg]
    """Keys and attributes alike, as tokenizers give them."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["data"][name]
        except KeyError:
            raise AttributeError(name) from None


class Output(collections.OrderedDict):  # type: ignore[type-arg]
    """A dictionary whose values are attributes, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.__dict__.update(self)


class ReadOnly(Mapping[str, Any]):
    """A mapping over a dictionary that copies share."""

    def __init__(self, **held: Any) -> None:
        self._held = held

    def __getitem__(self, key: str) -> Any:
        return self._held[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


class Nested:
    """Tensors as attributes, one of them within a list, and one that points back."""

    def __init__(self, image: Tensor, mask: Tensor) -> None:
        self.tensors, self.masks, self.own = image, [mask], self


class Reads(nn.Module):
    """Reads image and mask in whatever way they come, and writes into both."""

    def __init__(self, read: Callable[[Any], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.stem, self.head, self.read = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 2, 1), read

    def forward(self, batch: Any) -> Tensor:
        image, mask = self.read(batch)
        image.mul_(0.5)
        mask.add_(1)
        return self.head(self.stem(image) * mask)


CONTAINERS: dict[str, tuple[Callable[[], Any], Callable[[Any], tuple[Tensor, Tensor]]]] = {
    "dictionary": (lambda: {"x": (IMAGE, {"m": MASK})}, lambda b: (b["x"][0], b["x"][1]["m"])),
    "named tuple": (lambda: Inputs(Pair(IMAGE, MASK)), lambda b: (b.image, b.mask)),
    "dataclass": (lambda: Inputs(Sample(IMAGE, MASK)), lambda b: (b.image, b.mask)),
    "slots": (lambda: Inputs(Slotted(IMAGE, MASK)), lambda b: (b.image, b.mask)),
    "encoding": (lambda: Encoding(image=IMAGE, mask=MASK), lambda b: (b.image, b["mask"])),
    "output": (lambda: Output(image=IMAGE, mask=MASK), lambda b: (b.image, b["mask"])),
    "read only": (lambda: ReadOnly(image=IMAGE, mask=MASK), lambda b: (b["image"], b["mask"])),
    "object": (lambda: Inputs(Nested(IMAGE, MASK)), lambda b: (b.tensors, b.masks[0])),
    "deque": (lambda: Inputs(collections.deque([IMAGE, MASK])), lambda b: (b[0], b[1])),
    "list": (lambda: ([IMAGE, MASK],), lambda b: (b[0], b[1])),
}


@pytest.mark.parametrize(("make", "read"), CONTAINERS.values(), ids=CONTAINERS)
def test_tensors_are_found_in_containers_of_any_kind_and_never_written(
    make: Callable[[], Any], read: Callable[[Any], tuple[Tensor, Tensor]]
) -> None:
    image, mask = IMAGE.clone(), MASK.clone()
    given = make()
    graph = trace(Reads(read), given)
    assert graph.training_checked
    assert graph.prunable == 6
    assert torch.equal(IMAGE, image)
    assert torch.equal(MASK, mask)
    found = as_examples(given)[0].tensors()
    assert {id(tensor) for tensor in found} == {id(IMAGE), id(MASK)}


@pytest.mark.parametrize(("make", "read"), CONTAINERS.values(), ids=CONTAINERS)
def test_a_batch_in_any_container_is_cut_and_repeated(
    make: Callable[[], Any], read: Callable[[Any], tuple[Tensor, Tensor]]
) -> None:
    (inputs,) = as_examples(make())
    *forms, as_it_is = inputs_for_training(Reads(read), inputs)
    assert [len(read(form.args[0])[0]) for form in forms] == [4, 2, 12]
    first = forms[0]
    image, mask = read(first.args[0])
    assert (image.shape, mask.shape) == ((4, 3, 8, 8), (4, 1, 8, 8))
    assert torch.equal(image[:1], IMAGE)
    assert len({tuple(sample.flatten().tolist()) for sample in image}) == 4
    assert image.min() >= IMAGE.min()
    assert image.max() <= IMAGE.max()
    assert as_it_is is inputs
    cut = first_sample(Reads(read), first)
    assert [len(tensor) for tensor in read(cut.args[0])] == [1, 1]


def test_a_dictionary_as_training_input_and_arguments_that_are_no_tensors() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)

        def forward(
            self, image: Tensor, scale: Any, *, flag: bool, name: str, table: Any, none: None
        ) -> Tensor:
            assert (flag, name, none) == (True, "a", None)
            assert isinstance(table, np.ndarray)
            return self.head(self.stem(image) * scale)

    options = {"flag": True, "name": "a", "table": np.ones(3), "none": None}
    graph = trace(Mixed(), (IMAGE, 2.0), example_kwargs=options)
    assert graph.training_checked
    assert graph.prunable == 6


def test_costs_are_of_one_sample_where_other_inputs_have_other_sizes() -> None:
    class Points(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, image: Tensor, scale: Tensor, lengths: Tensor) -> Tensor:
            assert scale.shape == (3,)
            assert lengths.shape[0] == image.shape[0]
            return self.head(self.stem(image * scale[:, None, None]))

    images = torch.rand(4, 3, 8, 8)
    graph = trace(Points(), (images, torch.ones(3), torch.ones(4, dtype=torch.int64)))
    assert graph.training_checked
    assert next(v.shape for v in graph.values if v.kind == "input") == (1, 3, 8, 8)


def test_noise_never_makes_the_same_values_twice_and_leaves_integers_alone() -> None:
    flat = Inputs(torch.zeros(1, 2), torch.arange(3)[None], torch.full((1, 2), float("inf")))
    (zeros, integers, _), *_ = (form.args for form in inputs_for_training(nn.Identity(), flat))
    assert len(set(zeros.flatten().tolist())) == 7
    assert integers.tolist() == [[0, 1, 2]] * 4
    again = inputs_for_training(nn.Identity(), flat)[0].args[0]
    assert torch.equal(zeros, again)


def test_a_model_of_many_activations_gets_fewer_samples_in_training_mode() -> None:
    class Repeats(nn.Module):
        def __init__(self, times: int) -> None:
            super().__init__()
            self.times = times

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(self.times):
                x = x[..., None].expand(*x.shape, 2)[..., 0] + 1  # views hold nothing of their own
            return x

    inputs = Inputs(torch.zeros(1, 2**17))
    samples = {
        times: [form.batch for form in inputs_for_training(Repeats(times), inputs)]
        for times in (2**9 - 1, 2**9 + 1, 2**11 + 1)
    }
    # 2**28 numbers in all are the most for four samples, and for one before two.
    assert samples == {2**9 - 1: [4, 2, 1], 2**9 + 1: [2, 1], 2**11 + 1: [1, 2]}


def test_what_is_followed_is_let_go_without_the_collector_of_cycles() -> None:
    held: list[weakref.ref[Tensor]] = []

    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)

        def forward(self, image: Tensor) -> Tensor:
            made = self.stem(image)
            held.append(weakref.ref(made))
            return self.head(made if made.mean() > 0 else -made)

    gc.disable()
    try:
        trace(Keeps(), IMAGE)
        assert len(held) > 1
        assert [made() for made in held] == [None] * len(held)
    finally:
        gc.enable()


def test_what_a_run_has_made_is_let_go_before_the_next_but_for_what_the_model_holds() -> None:
    made: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    class Holds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.other, self.head = (nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1),
                                                nn.Conv2d(6, 2, 1))  # fmt: skip
            self.held: Tensor | None = None

        def forward(self, image: Tensor) -> Tensor:
            alive.append(sum(one() is not None for one in made))
            features = self.stem(image)
            made.append(weakref.ref(features))
            if not self.training:
                self.held = self.other(image).relu()
            elif self.held is not None:
                features = features + self.held[:1]
            return self.head(features if features.mean() > 0 else -features)

    graph = trace(Holds(), IMAGE)
    # The run that counts is recorded; of all others nothing is held.
    assert len(alive) > 3
    assert max(alive) <= 1
    # What it held of an earlier run is known in the next: both convolutions lose the same.
    assert graph.prunable == 6
    stem, other = (graph.dimension(f"{name}.weight", 0) for name in ("stem", "other"))
    assert stem.channels.tolist() == other.channels.tolist()


class TakesList(nn.Module):
    """Takes a list of images, as detectors do, and says so where it gets another thing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)

    def forward(self, images: list[Tensor]) -> Tensor:
        for image in images:
            if image.dim() != 3:
                raise ValueError(f"expected a list of 3d tensors, got {tuple(image.shape)}")
        return self.head(self.stem(torch.stack(images)))


def test_a_list_for_a_model_that_takes_a_list_is_told_how_to_give_it() -> None:
    assert trace(TakesList(), ([IMAGE[0], IMAGE[0] + 1],)).prunable == 6
    with pytest.raises(ModelError, match=r"write \(\[…\],\)") as caught:
        trace(TakesList(), [IMAGE[0], IMAGE[0]])
    assert "\n" not in str(caught.value)


class CanNotBeCopied:
    def __init__(self, image: Tensor) -> None:
        self.image = image

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("no copies")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": (
        {"example_input": None},
        "is of type NoneType; expected a tensor",
    ),
    "array": ({"example_input": np.ones(3)}, "is of type numpy.ndarray; expected a tensor"),
    "no list": ({"example_input": []}, "the example input is an empty list; expected one or more"),
    "keywords": ({"example_input": IMAGE, "example_kwargs": [1]}, "example_kwargs is of type list"),
    "training": ({"example_input": IMAGE, "training_inputs": 3}, "training_inputs is of type int"),
    "list in list": (
        {"example_input": [[IMAGE]]},
        r"that takes a list write \(\[…\],\)",
    ),
    "object": ({"example_input": Inputs(CanNotBeCopied(IMAGE))}, "can't be copied .*no copies"),
    "empty": ({"example_input": {"a": [torch.ones(0, 3)]}}, "empty tensor"),
    "only": ({"example_input": IMAGE, "only": "layer"}, "expected a sequence of str"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_inputs_of_other_kinds_are_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    with pytest.raises(InputError, match=message) as caught:
        trace(model, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", [None, 3, nn.Conv2d], ids=str)
def test_what_is_no_model_is_refused_in_one_line(model: Any) -> None:
    with pytest.raises(ModelError, match=r"expected a torch\.nn\.Module"):
        trace(model, IMAGE)


def test_an_input_of_the_wrong_size_is_told_in_pytorchs_own_words() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    with pytest.raises(ModelError, match="mat1 and mat2 shapes cannot be multiplied"):
        trace(model, torch.rand(1, 3, 16, 16))
    grouped = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(5))
    with pytest.raises(ModelError, match="running_mean should contain 6 elements not 5"):
        trace(grouped, IMAGE)


def test_an_empty_tensor_beside_others_is_no_fault() -> None:
    class Boxes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, image: Tensor, boxes: Tensor) -> Tensor:
            return self.head(self.stem(image)) + boxes.sum()

    assert trace(Boxes(), (IMAGE, torch.ones(0, 4))).training_checked


def test_a_model_that_is_right_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)), IMAGE)
