"""Residual networks for small images."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lcprune.errors import ModelError
from lcprune.models import build, cifar_resnet


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_depth_is_the_number_of_weighted_layers(depth: int) -> None:
    model = cifar_resnet(depth)
    weighted = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == depth


def test_macs_of_a_resnet56_are_those_known_for_zero_padded_shortcuts() -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        cifar_resnet(56).eval()(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() // 2 == 125_485_696


def test_shortcuts_have_no_parameters() -> None:
    names = [name for name, _ in cifar_resnet(20).named_parameters()]
    assert not [name for name in names if "shortcut" in name]


def test_shortcut_takes_every_second_pixel_and_pads_channels_on_either_side() -> None:
    block = cifar_resnet(20).get_submodule("layer2.0")
    nn.init.zeros_(block.get_submodule("bn2").weight)
    block.eval()
    image = torch.rand(2, 16, 8, 8)
    with torch.no_grad():
        output = block(image)
    expected = torch.zeros(2, 32, 4, 4)
    expected[:, 8:24] = image[:, :, ::2, ::2]
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("depth", [-4, 2, 7, 19, 57])
def test_other_depths_are_refused(depth: int) -> None:
    with pytest.raises(ModelError, match="6n \\+ 2"):
        cifar_resnet(depth)


def test_digits_resnet_takes_one_channel_of_eight_by_eight() -> None:
    model = build("digits_resnet", classes=10, input_shape=(1, 8, 8)).eval()
    assert model(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
