"""A YOLO of ultralytics pruned by its own detection loss and trained on by its own trainer.

    pip install 'lcprune[yolo]'
    python examples/yolo.py --out runs/yolo  # minutes, most of them training
    python examples/yolo.py --quick          # under a minute, to see that it runs

The network is built from its yaml, from random weights, and first trained on scenes that are made
up: discs, squares and triangles on noise. Then the search prunes it with the loss that it was
trained with, on images that it never saw; ultralytics' trainer fine-tunes it, its validator
measures it, and its exporter writes an ONNX file, which is run. Nothing is fetched or sent.

Licence: ultralytics is AGPL-3.0 or, bought, Enterprise, and its makers hold that this covers both
code that imports it and every model trained with it, weights included
(https://www.ultralytics.com/license; others read the law differently on weights, see
https://github.com/ultralytics/ultralytics/issues/2129). lcprune (Apache-2.0) neither contains nor
imports it, so only what runs this file, or ultralytics otherwise, has to do with those terms.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import lcprune as lp

# All of this has to be set before the package is imported.
FOLDER = tempfile.TemporaryDirectory(prefix="yolo-settings-")  # removed at the end
os.environ |= {
    "YOLO_CONFIG_DIR": FOLDER.name,  # settings, fonts: not in ~/.config/Ultralytics
    "MPLCONFIGDIR": FOLDER.name,  # nor the font cache in ~/.cache/matplotlib
    "YOLO_OFFLINE": "true",  # no look-up of hosts, no analytics, no question for newer versions
    "YOLO_AUTOINSTALL": "false",  # no `pip install` of what it misses
    "YOLO_VERBOSE": "false",  # errors only
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime 1.29 and newer report to Microsoft
}

import matplotlib  # noqa: E402
import onnxruntime  # noqa: E402
from ultralytics.data import build_dataloader, build_yolo_dataset  # noqa: E402
from ultralytics.engine.exporter import Exporter  # noqa: E402
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator  # noqa: E402
from ultralytics.nn.modules import C2f  # noqa: E402
from ultralytics.nn.tasks import DetectionModel  # noqa: E402
from ultralytics.utils import SETTINGS, USER_CONFIG_DIR  # noqa: E402

# No analytics even if online, and no experiment tracker that happens to be installed.
TRACKERS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
SETTINGS.update({"sync": False, **dict.fromkeys(TRACKERS, False)})
# A data set's check downloads this font, even offline, unless a file of this name is there.
FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
shutil.copy(FONT, USER_CONFIG_DIR / "Arial.ttf")

SIZE, BATCH = 96, 16
KINDS = ("disc", "square", "triangle")
SPLITS = ("train", "val", "test")  # `val` is what the search judges by; no training sees it

Batch = dict[str, Any]


def scenes(folder: Path, counts: Mapping[str, int], seed: int) -> Path:
    """A data set as ultralytics reads it, from ``seed``; the path of its yaml.

    Images uint8 [SIZE, SIZE, 3], each with one to four shapes of random kind, size and colour on
    noise, later ones in front; for each a text file of lines ``kind x y width height``, in shares
    of the image.
    """
    axis = np.arange(SIZE, dtype=np.float64)
    for number, split in enumerate(SPLITS):
        generator = np.random.default_rng([seed, number])
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for image in range(counts[split]):
            pixels = generator.normal(110, 30, (SIZE, SIZE, 3))
            lines = []
            for _ in range(generator.integers(1, 5)):
                kind = int(generator.integers(len(KINDS)))
                radius = generator.uniform(0.1, 0.22) * SIZE
                x, y = generator.uniform(radius, SIZE - radius, 2)
                dx, dy = axis[None, :] - x, axis[:, None] - y
                disc = dx**2 + dy**2 < radius**2
                square = np.maximum(abs(dx), abs(dy)) < radius
                triangle = square & (abs(dx) < (dy + radius) / 2)
                inside = (disc, square, triangle)[kind]
                pixels[inside] = generator.uniform(0, 255, 3)
                box = (x / SIZE, y / SIZE, 2 * radius / SIZE, 2 * radius / SIZE)
                lines.append(" ".join((str(kind), *(f"{side:.5f}" for side in box))))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(images / f"{image}.png")
            (labels / f"{image}.txt").write_text("\n".join(lines))
    data = folder / "scenes.yaml"
    paths = {split: f"images/{split}" for split in SPLITS}
    # JSON is YAML.
    data.write_text(json.dumps({"path": str(folder.resolve()), **paths, "names": list(KINDS)}))
    return data


def build(name: str) -> DetectionModel:
    """The network of a yaml file that ultralytics ships, for our kinds, with random weights."""
    model = DetectionModel(name, nc=len(KINDS), verbose=False)
    model.names, model.task = dict(enumerate(KINDS)), "detect"
    return model


def settings_of(data: Path) -> dict[str, Any]:
    """What training and measuring share."""
    return {
        "model": "module",  # never looked up: both are handed one
        "data": str(data),
        "split": "test",
        "imgsz": SIZE,
        "batch": BATCH,
        "device": "cpu",
        "workers": 0,
        "plots": False,
        "exist_ok": True,
    }


class Trainer(DetectionTrainer):
    """The framework's own trainer, on a module as it is instead of one built anew from its yaml."""

    def __init__(self, module: nn.Module, settings: Mapping[str, Any]) -> None:
        super().__init__(overrides=dict(settings))
        self.module = module

    def get_model(self, *_: object, **__: object) -> nn.Module:
        return self.module

    def save_model(self) -> bool:
        return False  # a checkpoint is a pickle of the module; lcprune saves without

    def final_eval(self) -> None:
        """Nothing: it reads the checkpoint again. ``scores`` measures."""

    def batches(self, split: str, count: int) -> list[Batch]:
        """The first ``count`` batches of a split as the model takes them, not augmented."""
        dataset = build_yolo_dataset(self.args, self.data[split], BATCH, self.data, mode="val")
        loader = build_dataloader(dataset, BATCH, workers=0, shuffle=False, device="cpu")
        return [self.preprocess_batch(batch) for batch in islice(loader, count)]


def fit(model: nn.Module, data: Path, folder: Path, epochs: int, rate: float, seed: int) -> Trainer:
    """Train; ``.ema.ema`` of the result is the trained network (a moving average, as they do)."""
    settings = {
        "project": str(folder.parent),
        "name": folder.name,
        "epochs": epochs,
        "optimizer": "AdamW",
        "lr0": rate,
        "warmup_epochs": 1,
        "nbs": BATCH,  # a step every batch, not every 64 images
        "mosaic": 0.0,
        "scale": 0.25,
        "amp": False,  # on a GPU its check downloads a network
        "val": False,
        "seed": seed,
    }
    trainer = Trainer(model, settings_of(data) | settings)
    trainer.train()
    trainer.ema.ema.requires_grad_(True)
    return trainer


def scores(model: nn.Module, data: Path, folder: Path) -> tuple[float, float]:
    """mAP50 and mAP50-95 on the test scenes, in percent, by the framework's own validator."""
    settings = {"project": str(folder.parent), "name": folder.name}
    validator = DetectionValidator(args=settings_of(data) | settings)
    found = validator(model=copy.deepcopy(model))  # it fuses what it measures
    map50, map50_95 = (float(found[f"metrics/{name}(B)"]) for name in ("mAP50", "mAP50-95"))
    return 100 * map50, 100 * map50_95


@torch.no_grad()
def detection_loss(model: nn.Module, batches: Sequence[Batch]) -> float:
    """The loss that the network is trained with, per image, with its running statistics."""
    model.eval()
    loss = sum(float(model.loss(batch)[0].sum()) for batch in batches)  # of a batch, not its mean
    return loss / sum(len(batch["img"]) for batch in batches)


class Heads(nn.Module):
    """A detector up to the raw boxes and scores, before they are decoded and chosen from.

    The head also returns the feature maps that it reads. Nobody needs those whole, and an output
    of a model stays as it is, so they are left out, and the layers that make them can be pruned.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> list[Tensor]:
        found = self.detector(images)
        found = found[1] if isinstance(found, tuple) else found  # decoded ones first, in eval mode
        heads = found.values() if "one2many" in found else [found]  # two in YOLO 10 and 26
        return [head[key] for head in heads for key in ("boxes", "scores")]


@torch.no_grad()
def predictions(model: nn.Module, images: Tensor) -> Tensor:
    """Boxes and scores of every anchor [N, 4 + kinds, anchors], decoded."""
    return model.eval()(images)[0]


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two predictions, of boxes as a share of the image."""
    gap = (found - expected).abs()
    return max(float(gap[:, :4].max()) / SIZE, float(gap[:, 4:].max()))


def export(model: nn.Module, path: Path) -> Callable[[Tensor], Tensor]:
    """Write ``model`` as ONNX, by the framework's exporter; one image's predictions by that file.

    Images are float32 [1, 3, SIZE, SIZE], and ONNX Runtime computes on one thread.
    """
    named = copy.deepcopy(model)
    for module in named.modules():
        if isinstance(module, C2f):
            # The exporter's way through this block reads a width that the ordinary one doesn't.
            module.c = module.cv1.conv.out_channels // 2
    named.pt_path = str(path.with_suffix(".pt"))  # the exporter takes the file's name from here
    written = Exporter(overrides={"format": "onnx", "imgsz": SIZE, "batch": 1})(model=named)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(written, options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"images": image.numpy()})[0])


def milliseconds(networks: Sequence[Callable[[Tensor], Tensor]], images: Tensor) -> list[float]:
    """The least time of each for one image, taken in turns."""
    spent: list[list[float]] = [[] for _ in networks]
    for image in images.split(1):
        for network, times in zip(networks, spent, strict=True):
            start = time.perf_counter()
            network(image)
            times.append(1000 * (time.perf_counter() - start))
    return [min(times) for times in spent]


@dataclass(frozen=True)
class State:
    """A network at one stage: percent on the test scenes, MACs of one image, milliseconds."""

    map50: float
    map50_95: float
    macs: int
    params: int
    ms: float  # in ONNX Runtime, one image at a time on one thread


@dataclass(frozen=True)
class Outcome:
    """The network at three stages, and differences that should be next to nothing."""

    model: str
    whole: State
    cut: State
    trained: State
    verify_error: float  # slimmed and masked network, float64
    load_error: float  # trained network and the one that was loaded
    onnx_error: float  # trained network and its ONNX file
    seconds: dict[str, float]


def run(
    out: Path,
    *,
    model: str,
    budget: float,
    round_to: int,
    trials: int,
    samples: int,
    epochs: int,
    seed: int,
) -> Outcome:
    """Train, search, slim, verify, train on, save and export; all files are under ``out``."""
    counts = {"train": samples, "val": samples // 4, "test": samples // 2}
    data = scenes(out / "scenes", counts, seed)
    times = [time.perf_counter()]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trainer = fit(build(model), data, out / "training", epochs, 3e-3, seed)
        times.append(time.perf_counter())

        # Search, cut, check
        whole = trainer.ema.ema
        recalibration = [batch["img"] for batch in trainer.batches("train", 8)]
        validation = trainer.batches("val", 8)
        heads, example = Heads(whole).eval(), recalibration[0][:1]
        graph = lp.repair(heads, lp.trace(heads, example), example)
        result = lp.search(
            heads,
            graph,
            lp.saliency(heads, graph, "l2"),
            lp.Budget(macs=budget),
            fitness=lambda candidate: detection_loss(candidate.detector, validation),
            recalibrate=recalibration,
            trials=trials,
            compensation="additive:family-rank",
            round_to=round_to,
            seed=seed,
        )
        slimmed = lp.slim(heads, result.plan)
        verify_error = lp.verify(heads, slimmed, result.plan, example)
        lp.recalibrate(slimmed, recalibration)
        cut = slimmed.detector
        cut_scores = scores(cut, data, out / "scores")
        times.append(time.perf_counter())

        # Train on, save, load
        trainer = fit(cut, data, out / "fine-tuning", max(1, epochs // 2), 2e-3, seed)
        small = trainer.ema.ema
        lp.save(Heads(small), out / "pruned", plan=result.plan, example_input=example)
        again = lp.load(out / "pruned", Heads(build(model))).detector
        times.append(time.perf_counter())

    # Measure, export
    images = torch.cat([batch["img"] for batch in trainer.batches("test", 2)])
    exported = export(whole, out / "whole.onnx"), export(again, out / "pruned.onnx")
    whole_ms, small_ms = milliseconds(exported, images)
    by_onnx = torch.cat([exported[1](image) for image in images.split(1)])
    before, after = lp.CostModel(graph).evaluate(), result.plan.cost

    def state(of: tuple[float, float], cost: Mapping[str, float], ms: float) -> State:
        return State(*of, int(cost["macs"]), int(cost["params"]), ms)

    return Outcome(
        model=model,
        whole=state(scores(whole, data, out / "scores"), before, whole_ms),
        cut=state(cut_scores, after, small_ms),
        trained=state(scores(again, data, out / "scores"), after, small_ms),
        verify_error=verify_error,
        load_error=difference(predictions(again, images), predictions(small, images)),
        onnx_error=difference(by_onnx, predictions(again, images)),
        seconds=dict(
            zip(("training", "search", "fine-tuning"), map(float, np.diff(times)), strict=True)
        ),
    )


def table(outcome: Outcome) -> Table:
    """The network whole, cut, and trained on, side by side."""
    stages = (outcome.whole, outcome.cut, outcome.trained)
    shown = Table("", "whole", "cut", "trained on", title=outcome.model)
    for name, label in (("map50", "mAP50, %"), ("map50_95", "mAP50-95, %")):
        shown.add_row(label, *(f"{getattr(stage, name):.1f}" for stage in stages))
    for name, label in (("macs", f"MACs of {SIZE}×{SIZE} pixels"), ("params", "parameters")):
        whole = getattr(outcome.whole, name)
        rest = (f"{getattr(s, name):,} ({getattr(s, name) / whole:.1%})" for s in stages[1:])
        shown.add_row(label, f"{whole:,}", *rest)
    shown.add_row("ms in ONNX Runtime", *(f"{stage.ms:.2f}" for stage in stages))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="yolo11n.yaml", help="a yaml file of ultralytics")
    parser.add_argument("--budget", type=float, default=0.5, help="share of the MACs that may stay")
    parser.add_argument("--round-to", type=int, default=8, help="widths are multiples of this")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--samples", type=int, default=320, help="training scenes")
    parser.add_argument(
        "--epochs", type=int, default=30, help="of training; half as many of fine-tuning"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="very little of everything")
    parser.add_argument("--out", type=Path, help="a folder to make; by default nothing is kept")
    parser.add_argument("--json", type=Path, help="a file for what the table shows")
    options = vars(parser.parse_args())
    if options.pop("quick"):
        options |= {"trials": 2, "samples": 32, "epochs": 1}
    out, result = options.pop("out"), options.pop("json")
    if out is not None and out.exists():
        parser.error(f"{out} exists")
    with tempfile.TemporaryDirectory() as scratch:
        # Absolute, since ultralytics puts what isn't into its own folder of runs.
        outcome = run((out or Path(scratch)).resolve(), **options)
    if result is not None:
        result.write_text(json.dumps(asdict(outcome), indent=1) + "\n")
    console = Console()
    console.print(table(outcome))
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in outcome.seconds.items())
    console.print(
        f"{spent}; slimmed and masked network differ by {outcome.verify_error:.1g}, saved and"
        f" loaded one by {outcome.load_error:.1g}, it and its ONNX file by {outcome.onnx_error:.1g}"
    )
    if not max(outcome.load_error, outcome.onnx_error) < 1e-3:
        raise SystemExit("a file does not hold the network that it was written from")


if __name__ == "__main__":
    main()
