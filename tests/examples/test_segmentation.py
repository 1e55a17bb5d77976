"""The segmentation example: a dictionary of outputs, a fitness and a loop of its own."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lcprune as lp
from examples.loading import load_example


@pytest.fixture(scope="module")
def example() -> ModuleType:
    pytest.importorskip("torchvision")
    return load_example("segmentation")


class _Answers(nn.Module):
    """Returns given kinds, one-hot, whatever the image."""

    def __init__(self, kinds: Tensor, count: int) -> None:
        super().__init__()
        self.answer = functional.one_hot(kinds, count).movedim(3, 1).float()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.answer[: len(images)]}


@pytest.mark.thorough
def test_the_quick_settings_run(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = []
    whole_run = example.run
    monkeypatch.setattr(example, "run", lambda **o: outcomes.append(whole_run(**o)) or outcomes[0])
    monkeypatch.setattr(sys, "argv", ["segmentation.py", "--quick", "--budget", "0.4"])
    example.main()
    (outcome,) = outcomes
    whole = lp.CostModel(outcome.graph).evaluate()
    assert outcome.plan.cost["macs"] <= 0.4 * whole["macs"]
    assert outcome.error <= 1e-9
    assert sum(p.numel() for p in outcome.small.parameters()) == outcome.plan.cost["params"]
    shown = capsys.readouterr().out
    assert f"{outcome.plan.cost['macs']:,}" in shown
    assert f"{outcome.after:.1f}" in shown


def test_mean_iou_is_that_of_its_definition(example: ModuleType) -> None:
    ((images, masks),) = example.scenes(4, 0)
    count = len(example.KINDS)
    assert example.mean_iou(_Answers(masks, count), [(images, masks)]) == pytest.approx(100)
    found = torch.where(torch.rand(masks.shape, generator=torch.Generator().manual_seed(1)) < 0.3,
                        (masks + 1) % count, masks)  # fmt: skip
    expected = [
        ((masks == k) & (found == k)).sum() / ((masks == k) | (found == k)).sum()
        for k in range(count)
    ]
    seen = example.mean_iou(_Answers(found, count), [(images, masks)])
    assert seen == pytest.approx(100 * float(sum(expected)) / count)


def test_training_lowers_the_loss_and_estimates_batch_norms(example: ModuleType) -> None:
    data = example.scenes(8, 0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    wrapped = _Dictionary(model)

    def loss() -> float:
        images, masks = data[0]
        with torch.no_grad():
            return float(functional.cross_entropy(wrapped.eval()(images)["out"], masks))

    before = loss()
    example.fit(wrapped, data, epochs=20, rate=0.1)
    assert loss() < before
    with torch.no_grad():
        mean = model[0](data[0][0]).mean((0, 2, 3))
    assert torch.allclose(model[1].running_mean, mean, atol=1e-4)


class _Dictionary(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.inner(images)}


def test_scenes_follow_their_seed_and_hold_every_kind(example: ModuleType) -> None:
    (images, masks), (more, _) = example.scenes(20, 3)
    again, other = example.scenes(20, 3), example.scenes(20, 4)
    assert images.shape == (16, 3, example.SIZE, example.SIZE)
    assert (len(more), masks.dtype) == (4, torch.int64)
    assert torch.equal(images, again[0][0])
    assert not torch.equal(images, other[0][0])
    assert set(masks.unique().tolist()) == set(range(len(example.KINDS)))
