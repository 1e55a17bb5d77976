"""Models by name."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from lcprune._checks import instance, integer, refused, told_in_one_line
from lcprune._factory import call_factory, is_factory
from lcprune._text import described, shown
from lcprune.errors import LcpruneError, ModelError
from lcprune.models._cifar_mobilenet import cifar_mobilenet_v2
from lcprune.models._cifar_resnet import cifar_resnet

Shape = tuple[int, int, int]

DEPTHS = (20, 32, 44, 56, 110)

OWN: dict[str, Callable[[int, int], nn.Module]] = {
    **{f"cifar_resnet{depth}": partial(cifar_resnet, depth) for depth in DEPTHS},
    "cifar_mobilenet_v2": cifar_mobilenet_v2,
    "digits_resnet": partial(cifar_resnet, 8),
}
"""The models of lcprune itself, as functions of the classes and the input's channels."""

PUBLISHERS = ("torchvision/", "timm/")

MOST_CLASSES, LARGEST_SIDE = 10**7, 2**20

AUXILIARY = {"googlenet", "inception_v3"}
"""Models of torchvision with heads that only a loss of their own would train."""


def build(name: str, *, classes: int | None, input_shape: Shape, seed: int = 0) -> nn.Module:
    """Build the model called ``name`` with random weights, the same for the same ``seed``.

    ``name`` is one of lcprune's own (``model_names()``), ``torchvision/NAME``, ``timm/NAME``,
    ``path/to/file.py:factory`` or ``package.module:factory`` (the last colon splits; a factory
    gets ``classes`` or ``num_classes`` and ``input_shape`` where its signature names them).
    ``classes`` none leaves the model's own number. ``input_shape`` is (C, H, W); a factory's
    may be any without the batch. GoogLeNet and Inception come without auxiliary heads.
    ``ModelError`` where there is no such model or it can't be built.
    """
    instance("model", name, str, "the name of a model", ModelError)
    if classes is not None:
        integer("classes", classes, 1, MOST_CLASSES, ModelError)
    integer("seed", seed, 0, error=ModelError)
    listed = isinstance(input_shape, tuple | list)
    if not listed or not (len(input_shape) == 3 or runs_code(name)):
        raise refused("input_shape", input_shape, "(C, H, W)", ModelError)
    for side in input_shape:
        integer("input_shape", side, 1, LARGEST_SIDE, ModelError)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in OWN:
            make = OWN[name]
            return _module(name, lambda: make(10 if classes is None else classes, input_shape[0]))
        if name.startswith("torchvision/"):
            return _torchvision(name, classes, input_shape)
        if name.startswith("timm/"):
            return _timm(name, classes, input_shape)
        if is_factory(name):
            return _foreign(name, classes, input_shape)
    raise _unknown(name)


def check_name(name: str) -> None:
    """Raise ``ModelError`` unless ``build`` takes such a name; whether there is one isn't tried."""
    instance("model", name, str, "the name of a model", ModelError)
    if name not in OWN and not name.startswith(PUBLISHERS) and not is_factory(name):
        raise _unknown(name)


def _unknown(name: str) -> ModelError:
    if name in _torchvision_names():
        return ModelError(f"unknown model {name!r}: did you mean torchvision/{name}?")
    return ModelError(f"unknown model {shown(name)}{_near(name, list(OWN))}")


def model_names() -> tuple[str, ...]:
    """Names of lcprune's own models."""
    return tuple(OWN)


def runs_code(name: str) -> bool:
    """Whether ``build`` would import code from outside of lcprune, torchvision and timm."""
    return name not in OWN and is_factory(name)


def _torchvision(name: str, classes: int | None, input_shape: Shape) -> nn.Module:
    try:
        models = importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError) as error:
        raise ModelError(f"{name} needs torchvision: pip install 'lcprune[vision]'") from error
    short = name.removeprefix("torchvision/")
    known = models.list_models()
    if short not in known:
        raise ModelError(f"unknown model {name!r}{_near(short, known, 'torchvision/')}")
    if input_shape[0] != 3:
        raise ModelError(f"{name} takes images of 3 channels, not {input_shape[0]}")
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if short in AUXILIARY:
        # An input transform goes with torchvision's weights; it is part of the model always, so
        # that a fresh one is the same function as the one whose weights were saved.
        options |= {"aux_logits": False, "init_weights": True, "transform_input": True}
    with told_in_one_line(name):
        takes = inspect.signature(models.get_model_builder(short)).parameters
    if "weights_backbone" in takes:  # detectors and segmenters, which would download some
        options["weights_backbone"] = None
    return _module(name, lambda: models.get_model(short, weights=None, **options))


def _torchvision_names() -> list[str]:
    try:
        names: list[str] = importlib.import_module("torchvision.models").list_models()
    except (ImportError, RuntimeError):
        return []
    return names


def _timm(name: str, classes: int | None, input_shape: Shape) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:
        raise ModelError(f"{name} needs timm: pip install 'lcprune[timm]'") from error
    short = name.removeprefix("timm/")
    if not timm.is_model(short):
        raise ModelError(f"unknown model {name!r}{_near(short, timm.list_models(), 'timm/')}")
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    return _module(
        name,
        lambda: timm.create_model(short, pretrained=False, in_chans=input_shape[0], **options),
    )


def _foreign(name: str, classes: int | None, input_shape: Shape) -> nn.Module:
    offered: dict[str, Any] = {"input_shape": input_shape}
    if classes is not None:
        offered |= {"classes": classes, "num_classes": classes}
    return _module(name, lambda: call_factory(name, ModelError, **offered))


def _module(name: str, make: Callable[[], Any]) -> nn.Module:
    try:
        model = make()
    except LcpruneError:
        raise
    except Exception as error:
        raise ModelError(f"{name}: {described(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name}: expected an nn.Module, got {type(model).__name__}")
    return model


def _near(name: str, known: list[str], prefix: str = "") -> str:
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if matches:
        return ": did you mean " + " or ".join(prefix + match for match in matches) + "?"
    if prefix:
        return ""
    return (
        f": expected {', '.join(known)}, torchvision/NAME, timm/NAME, "
        "path/to/file.py:factory or package.module:factory"
    )
