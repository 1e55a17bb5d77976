"""The networks of the zoo bench: which there are, how to build one, and what it is run on.

timm's part is one of every architecture with at least four spatial convolutions and at most 60 M
parameters: of names that differ in nothing but their training (equal module, parameters and
layers) the first in alphabetical order stands for all.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcprune import Inputs

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

    In training it is the whole detector, from images and targets to losses.

    Two-stage detectors look at fixed proposals, since a choice of proposals is no function that
    a comparison could stand on.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector
        if hasattr(detector, "rpn"):  # else images are made as large as those of COCO
            detector.transform.min_size, detector.transform.max_size = (128,), 160

    def forward(self, images: Tensor, targets: Any = None) -> Any:
        detector = self.detector
        if self.training:
            return detector(list(images), targets)
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
    """A random input of the smallest size that the model runs on, in training too if any."""
    found = None
    for shape in _shapes(name, model):
        images = torch.randn(shape, generator=generator)
        if not _runs(model.eval(), images):
            continue
        found = images if found is None else found
        given = training_inputs(name, images) or Inputs(torch.cat([images, images + 0.1]))
        if _runs(copy.deepcopy(model).train(), *given.args):
            return images
    if found is None:
        raise RuntimeError("no input size works")
    return found


def _runs(model: nn.Module, *args: Any) -> bool:
    try:
        with torch.no_grad():
            model(*args)
    except Exception:
        return False
    return True


def training_inputs(name: str, images: Tensor) -> Inputs | None:
    """What training wants of a detector: two images and what is in them; none for all others."""
    if "/detection/" not in name:
        return None
    height, width = images.shape[-2:]
    targets = []
    for number in (1, 2):
        boxes = torch.tensor(
            [[4.0, 6.0, width / 2, height / 2], [9.0, 9.0 * number, width - 3, height - 5]]
        )
        target = {"boxes": boxes, "labels": torch.tensor([number, 3])}
        target["masks"] = torch.zeros(2, height, width, dtype=torch.uint8)
        target["masks"][:, 10:30, 10:30] = 1
        points = torch.rand(2, 17, 3, generator=torch.Generator().manual_seed(number))
        target["keypoints"] = points * torch.tensor([width - 20.0, height - 20.0, 0]) + 10
        target["keypoints"][..., 2] = 1
        if name.endswith("keypointrcnn_resnet50_fpn"):
            target["labels"] = torch.tensor([1, 1])
        targets.append(target)
    return Inputs(torch.cat([images, images.flip(3) * 0.7]), targets)


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
