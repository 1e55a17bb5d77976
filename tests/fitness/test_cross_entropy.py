"""The loss on held-back images, on all of them or on a part."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from lcprune.errors import DataError, InputError, ModelError
from lcprune.fitness import CrossEntropy, Divisible, Precision, first_part
from lcprune.models import build


class Logits(nn.Module):
    """Takes its first pixels as logits."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.classes = classes
        self.dropout = nn.Dropout(0.9)

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.dropout(input.flatten(1)[:, : self.classes])
        return output


@given(count=st.integers(1, 20), batch=st.integers(1, 25), seed=st.integers(0, 99))
def test_equals_the_definition_whatever_the_batch(count: int, batch: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 2, 2, generator=generator) * 5
    labels = torch.randint(4, (count,), generator=generator)
    expected = 0.0
    for image, label in zip(images.double(), labels, strict=True):
        logits = image.flatten()
        expected += math.log(sum(math.exp(x) for x in logits)) - float(logits[label])
    model = Logits().train()
    loss = CrossEntropy(images, labels, batch)(model)
    assert loss == pytest.approx(expected / count, rel=1e-5, abs=1e-6)
    assert model.training
    assert model.dropout.training


def test_a_loss_that_is_no_number_is_infinite() -> None:
    class NaN(Logits):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * math.nan

    assert CrossEntropy(torch.ones(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64), 2)(NaN()) == (
        math.inf
    )


def test_precision_holds_the_images_as_the_model_wants_them() -> None:
    precision = Precision("bfloat16", True, 8)
    images, labels = torch.randn(16, 1, 8, 8), torch.arange(16) % 10
    model = build("digits_resnet", classes=10, input_shape=(1, 8, 8)).eval()
    exact = CrossEntropy(images, labels, 8)(model)
    rough = CrossEntropy(images, labels, 8, precision)(precision.apply(model))
    assert rough == pytest.approx(exact, rel=0.05)
    assert rough != exact


def test_log_softmax_is_float32() -> None:
    class Half(nn.Module):
        def forward(self, input: Tensor) -> Tensor:
            return torch.tensor([[3.0, 0.0]]).bfloat16().expand(len(input), 2)

    labels = torch.ones(3, dtype=torch.int64)
    loss = CrossEntropy(torch.zeros(3, 1), labels, 3)(Half())
    assert loss == pytest.approx(3 + math.log1p(math.exp(-3)), rel=1e-6)


@pytest.mark.parametrize("model", [Logits(3), nn.Identity(), nn.Flatten(0)])
def test_outputs_that_do_not_fit_the_labels_are_an_error(model: nn.Module) -> None:
    fitness = CrossEntropy(torch.zeros(2, 1, 2, 2), torch.tensor([0, 3]), 2)
    with pytest.raises(ModelError, match="expected logits"):
        fitness(model)


@pytest.mark.parametrize(("images", "labels"), [(0, 0), (2, 3)])
def test_images_and_labels_go_together(images: int, labels: int) -> None:
    with pytest.raises(DataError, match="as many labels as images"):
        CrossEntropy(torch.zeros(images, 1), torch.zeros(labels, dtype=torch.int64), 2)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    percent=st.integers(0, 100),
    pairs=st.booleans(),
)
def test_a_part_is_the_first_images_rounded_up_at_least_sixteen(
    sizes: list[int], percent: int, pairs: bool
) -> None:
    images = torch.arange(sum(sizes), dtype=torch.float32)
    batches = list(images.split(sizes))
    if pairs:
        part = first_part([(batch, batch + 0.5) for batch in batches], percent / 100)
        assert all((other - one == 0.5).all() for one, other in part)
        found = torch.cat([one for one, _ in part])
    else:
        found = torch.cat(first_part(batches, percent / 100))
    count = min(sum(sizes), max(16, math.ceil(sum(sizes) * percent / 100 - 1e-9)))
    assert found.tolist() == list(range(len(found)))
    ends = np.cumsum(sizes).tolist()
    alone = count - 1 in ends and count not in ends  # one image of a larger batch
    assert len(found) == count - alone


def test_nothing_is_copied() -> None:
    images = torch.zeros(50)
    (part,) = first_part([images], 0.5)
    assert len(part) == 25
    assert part.data_ptr() == images.data_ptr()


def test_of_no_batches_there_is_no_part() -> None:
    assert first_part([], 0.5) == []


@pytest.mark.parametrize("share", [0.5, 0.6, 1.0])
def test_the_cross_entropy_of_a_part_is_that_of_its_images(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(40, 6, generator=generator)
    labels = torch.randint(0, 5, (40,), generator=generator)
    model = nn.Linear(6, 5)
    fitness = CrossEntropy(images, labels, batch=16)
    assert isinstance(fitness, Divisible)
    count = round(40 * share)
    with torch.no_grad():
        expected = functional.cross_entropy(model(images[:count]), labels[:count])
        whole = functional.cross_entropy(model(images), labels)
    assert fitness.part(share)(model) == pytest.approx(float(expected), rel=1e-6)
    assert fitness(model) == pytest.approx(float(whole), rel=1e-6)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    fitness = CrossEntropy(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), batch=2)
    with pytest.raises(InputError, match=r"expected a finite number from 0 to 1"):
        fitness.part(share)
