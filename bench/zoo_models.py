"""The networks of the zoo bench: which there are, how to build one, and what it is run on.

timm's part is one of every architecture with at least four spatial convolutions and at most 60 M
parameters: of names that differ in nothing but their training (equal module, parameters and
layers) the first in alphabetical order stands for all.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

LIST = Path(__file__).with_name("zoo_models.json")
SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448)
SEGMENTATION = (
    "fcn_resnet50",
    "deeplabv3_resnet50",
    "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large",
)
DETECTION = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
)
VIDEO = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d")
MOST = 60_000_000
TRANSFORMERS = ("vit", "swin", "maxvit")


def names() -> list[str]:
    """Every network of the bench, shuffled once and for all, so that any beginning is a sample."""
    found: list[str] = json.loads(LIST.read_text())
    return sorted(found, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def _torchvision(name: str) -> nn.Module:
    import torchvision

    kwargs: dict[str, Any] = {"weights": None}
    if name in ("googlenet", "inception_v3"):
        kwargs["init_weights"] = False
    model: nn.Module = torchvision.models.get_model(name.rpartition("/")[2], **kwargs)
    return model


def write_list() -> None:
    """Choose the networks anew, for the versions of torchvision and timm that are installed."""
    found = [f"torchvision/{name}" for name in _torchvision_classifiers()]
    found += [f"torchvision/segmentation/{name}" for name in SEGMENTATION]
    found += [f"torchvision/detection/{name}" for name in DETECTION]
    found += [f"torchvision/video/{name}" for name in VIDEO]
    found += [f"timm/{name}" for name in _timm_architectures()]
    LIST.write_text(json.dumps(found, indent=0) + "\n")


def _torchvision_classifiers() -> list[str]:
    import torchvision

    listed = torchvision.models.list_models(module=torchvision.models)
    names = [name for name in listed if not name.startswith(TRANSFORMERS)]
    return [n for n in names if sum(p.numel() for p in _torchvision(n).parameters()) <= MOST]


def _timm_architectures() -> list[str]:
    import timm

    chosen: dict[tuple[Any, ...], str] = {}
    for name in sorted(timm.list_models()):
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = timm.create_model(name, pretrained=False)
        parameters = sum(p.numel() for p in model.parameters())
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
        if parameters > MOST or sum(max(c.kernel_size) > 1 for c in convolutions) < 4:
            continue
        kinds = tuple(type(m).__name__ for m in model.modules())
        chosen.setdefault((type(model).__module__, parameters, kinds), name)
    return sorted(chosen.values())


def build(name: str) -> nn.Module:
    """A network of the zoo with random weights, in eval mode."""
    source, _, rest = name.partition("/")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if source == "timm":
            import timm

            model: nn.Module = timm.create_model(rest, pretrained=False)
        elif rest.startswith("detection/"):
            model = BeforeSuppression(_detector(rest.partition("/")[2]))
        elif rest.startswith("segmentation/"):
            model = _segmenter(rest.partition("/")[2])
        else:
            model = _torchvision(rest)
    return model.eval()


def _segmenter(name: str) -> nn.Module:
    import torchvision

    kwargs = {} if name.startswith("lraspp") else {"aux_loss": True}
    return torchvision.models.get_model(name, weights=None, weights_backbone=None, **kwargs)


def _detector(name: str) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, weights=None, weights_backbone=None)


class BeforeSuppression(nn.Module):
    """A torchvision detector up to the tensors that non-maximum suppression would choose from.

    Two-stage detectors look at fixed proposals, since a choice of proposals is no function that
    a comparison could stand on.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> list[Tensor]:
        detector = self.detector
        features = detector.backbone(images)
        features = features if isinstance(features, dict) else {"0": features}
        maps = list(features.values())
        if not hasattr(detector, "rpn"):
            return list(detector.head(maps).values())
        found = [tensor for part in detector.rpn.head(maps) for tensor in part]
        height, width = images.shape[-2:]
        box = [[0.0, 0.0, width / 2, height / 2], [width / 4, 0.0, width - 1.0, height - 1.0]]
        proposals = [torch.tensor(box, dtype=images.dtype, device=images.device)]
        heads, shapes = detector.roi_heads, [(height, width)]
        pooled = heads.box_roi_pool(features, proposals, shapes)
        found += heads.box_predictor(heads.box_head(pooled))
        if getattr(heads, "mask_roi_pool", None) is not None:
            pooled = heads.mask_roi_pool(features, proposals, shapes)
            found.append(heads.mask_predictor(heads.mask_head(pooled)))
        if getattr(heads, "keypoint_roi_pool", None) is not None:
            pooled = heads.keypoint_roi_pool(features, proposals, shapes)
            found.append(heads.keypoint_predictor(heads.keypoint_head(pooled)))
        return found


def example(name: str, model: nn.Module, generator: torch.Generator) -> Tensor:
    """A random input of the smallest size that the model admits."""
    for shape in _shapes(name, model):
        images = torch.randn(shape, generator=generator)
        try:
            with torch.no_grad():
                model(images)
        except Exception:
            continue
        return images
    raise RuntimeError("no input size works")


def _shapes(name: str, model: nn.Module) -> Iterator[tuple[int, ...]]:
    channels = 3
    if "/video/" in name:
        for size in SIZES:
            yield (1, channels, 16, size, size)
        return
    first = SIZES.index(128) if "/detection/" in name else 0
    config = getattr(model, "pretrained_cfg", None) or {}
    channels, height, width = config.get("input_size", (3, 224, 224))
    for size in SIZES[first:]:
        yield (1, channels, size, size)
    yield (1, channels, height, width)


if __name__ == "__main__":
    write_list()
