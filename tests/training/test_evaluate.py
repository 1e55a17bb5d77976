"""Accuracy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lcprune.data import Data, Images
from lcprune.errors import ModelError
from lcprune.training import evaluate_top1, evaluation_batch


class Brightest(nn.Module):
    """Answers with the brightest of its pixels; wrong in training mode."""

    def forward(self, input: Tensor) -> Tensor:
        assert input.dtype == torch.float32
        return input.flatten(1) * (-1 if self.training else 1)


def data(labels: list[int], brightest: list[int]) -> Data:
    pixels = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    for image, place in zip(pixels, brightest, strict=True):
        image.view(-1)[place] = 255
    images = Images(pixels, torch.tensor(labels))
    return Data(images, images, tuple("abcd"), (0.5,), (0.5,), (1, 2, 2))


@pytest.mark.parametrize("batch", [1, 2, 5, 9])
def test_percentage_of_right_answers(batch: int) -> None:
    value = data([0, 1, 2, 3, 0], [0, 1, 3, 3, 1])
    model = Brightest().train()
    assert evaluate_top1(model, value.test, value, batch) == pytest.approx(60.0)
    assert model.training


@pytest.mark.parametrize("model", [nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), nn.Identity()])
def test_logits_that_do_not_match_the_classes(model: nn.Module) -> None:
    value = data([0, 1], [0, 1])
    with pytest.raises(ModelError, match=r"expected \(2, 4\) logits"):
        evaluate_top1(model, value.test, value)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 32, 32), 250), ((3, 96, 96), 250), ((3, 224, 224), 45), ((3, 5000, 5000), 1)],
)
def test_a_batch_of_large_images_holds_fewer(shape: tuple[int, int, int], expected: int) -> None:
    assert evaluation_batch(shape) == expected


def test_without_a_batch_as_many_as_memory_bears() -> None:
    value = data([0, 1, 2, 3] * 200, [0, 1, 2, 3] * 200)
    sizes = []

    class Watching(Brightest):
        def forward(self, input: Tensor) -> Tensor:
            sizes.append(len(input))
            return super().forward(input)

    assert evaluate_top1(Watching(), value.test, value) == 100.0
    assert sizes == [250, 250, 250, 50]
