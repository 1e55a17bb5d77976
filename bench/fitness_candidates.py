"""The study of ``fitness_study.py``, and the fitnesses that it compares.

Each candidate gives a number for a plan, and lower is better.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import lcprune as lp
import plans
from lcprune.data import Data, ImageSet, training_batches
from lcprune.fitness import Precision, recalibrate
from lcprune.ranking import Plan
from lcprune.training import TrainingConfig, finetune

BATCH = 250
RIDGE = 1e-2


class Study:
    """The base network and the parts of the data.

    The 5,000 images that the base never saw are split: ``unseen`` has 1,000 for fitnesses that want
    such images, ``judge`` the 4,000 that trained networks are judged on.
    """

    def __init__(self, network: str, weights: Path, cifar: Path, dtype: Any = "float32") -> None:
        self.base = plans.load_base(network, weights)
        self.planner = plans.Planner(self.base)
        split = plans.load_split(cifar)
        self.data = split.data
        order = torch.randperm(len(split.held), generator=torch.Generator().manual_seed(0))
        self.unseen: ImageSet = split.held.subset(order[:1000])
        self.judge: ImageSet = split.held.subset(order[1000:])
        self.training = TrainingConfig(
            epochs=1, dtype=dtype, teacher_precision=Precision(dtype, channels_last=True)
        )

    def cut(self, plan: Plan, images: int = 1000, seed: int = 0) -> nn.Module:
        """The slimmed network with statistics of so many training images."""
        small = lp.slim(self.base.model, plan)
        recalibrate(small, list(torch.split(self.training_images(images, seed)[0], 250)))
        return small

    def train(self, plan: Plan, steps: int, seed: int) -> nn.Module:
        """The slimmed network after so many steps of fine-tuning."""
        model = self.cut(plan)
        batches = training_batches(self.data.train, self.data, 128, seed=seed)
        config = replace(self.training, seed=seed)
        finetune(model, FirstBatches(batches, steps), teacher=self.base.model, config=config)
        return model

    def training_images(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Normalised images that the base was trained on, and their labels."""
        generator = torch.Generator().manual_seed(1000 + seed)
        order = torch.randperm(len(self.data.train), generator=generator)
        return all_images(self.data.train.subset(order[:count]), self.data)


Candidate = Callable[[Study, Plan], float]


def offered(study: Study) -> dict[str, Candidate]:
    """All candidates by name; what none of them changes is computed once."""
    seen = {count: study.training_images(count, 1) for count in (500, 1000, 2000, 4000)}
    unseen = all_images(study.unseen, study.data)
    mixed = {count: augmented(study, count) for count in (500, 2000)}
    teacher = {count: logits(study.base.model, images) for count, images in mixed.items()}
    teacher_unseen = logits(study.base.model, unseen[0])

    def loss_on(images: Tensor, labels: Tensor, recalibrated: int = 1000) -> Candidate:
        return lambda study, plan: cross_entropy(
            logits(study.cut(plan, recalibrated), images), labels
        )

    def divergence_on(images: Tensor, wanted: Tensor) -> Candidate:
        return lambda study, plan: divergence(logits(study.cut(plan), images), wanted)

    def refitted(images: Tensor, wanted: Tensor) -> Candidate:
        def value(study: Study, plan: Plan) -> float:
            small = refit(study.cut(plan), study, mixed[2000], teacher[2000])
            return divergence(logits(small, images), wanted)

        return value

    def after(steps: int, images: Tensor, labels: Tensor) -> Candidate:
        return lambda study, plan: cross_entropy(
            logits(stepped(study, plan, steps), images), labels
        )

    found: dict[str, Candidate] = {
        "cross-entropy, 2,000 training images": loss_on(*seen[2000]),
        "cross-entropy, 500 training images": loss_on(*seen[500]),
        "cross-entropy, 4,000 training images": loss_on(*seen[4000]),
        "cross-entropy, 1,000 unseen images": loss_on(*unseen),
        "error, 1,000 unseen images": lambda study, plan: errors(
            logits(study.cut(plan), unseen[0]), unseen[1]
        ),
        "error, 4,000 training images": lambda study, plan: errors(
            logits(study.cut(plan), seen[4000][0]), seen[4000][1]
        ),
        "divergence, 2,000 augmented images": divergence_on(mixed[2000], teacher[2000]),
        "divergence, 500 augmented images": divergence_on(mixed[500], teacher[500]),
        "divergence, 1,000 unseen images": divergence_on(unseen[0], teacher_unseen),
        "divergence after a ridge refit, 1,000 unseen images": refitted(unseen[0], teacher_unseen),
    }
    found["most narrowed layer (no images)"] = most_narrowed
    found["unevenness of widths (no images)"] = unevenness
    for count in (128, 250, 500, 2000, 4000):
        name = f"cross-entropy, 2,000 training images, statistics of {count:,}"
        found[name] = loss_on(*seen[2000], recalibrated=count)
    for steps in (20, 50, 200):
        found[f"cross-entropy after {steps} steps, 1,000 unseen images"] = after(steps, *unseen)
    return found


def shares_removed(study: Study, plan: Plan) -> list[float]:
    """Of every tensor dimension that may be cut."""
    return [
        1 - len(plan.kept.get(dimension.key, dimension.channels)) / len(dimension.channels)
        for dimension in study.planner.graph.dimensions
    ]


def most_narrowed(study: Study, plan: Plan) -> float:
    return max(shares_removed(study, plan))


def unevenness(study: Study, plan: Plan) -> float:
    return float(torch.tensor(shares_removed(study, plan)).std())


def all_images(images: ImageSet, data: Data) -> tuple[Tensor, Tensor]:
    held = images.in_memory()
    return data.normalise(held.pixels), held.labels


def augmented(study: Study, count: int) -> Tensor:
    """Training images shifted, mirrored and mixed in pairs, by a seed of their own."""
    generator = torch.Generator().manual_seed(7)
    batches = training_batches(study.data.train, study.data, count, seed=77)
    images = next(iter(batches))[0]
    share = torch.rand(count, 1, 1, 1, generator=generator) * 0.5
    other = images[torch.randperm(count, generator=generator)]
    return images + share * (other - images)


@torch.inference_mode()
def logits(model: nn.Module, images: Tensor) -> Tensor:
    model.eval()
    return torch.cat([model(part) for part in torch.split(images, BATCH)])


def cross_entropy(outputs: Tensor, labels: Tensor) -> float:
    return float(functional.cross_entropy(outputs, labels))


def errors(outputs: Tensor, labels: Tensor) -> float:
    return float((outputs.argmax(1) != labels).float().mean())


def divergence(outputs: Tensor, teacher: Tensor) -> float:
    """KL(teacher || outputs), the mean over images."""
    return float(
        functional.kl_div(
            functional.log_softmax(outputs, 1),
            functional.log_softmax(teacher, 1),
            reduction="batchmean",
            log_target=True,
        )
    )


def refit(model: nn.Module, study: Study, images: Tensor, teacher: Tensor) -> nn.Module:
    """Give the last layer the weights that come nearest to the original's outputs."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    held: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: held.append(inputs[0].detach()))
    logits(model, images)
    hook.remove()
    features = torch.cat(held).double()
    features = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], 1)
    # Towards the weights that are there, not towards zero.
    own = torch.cat([last.weight.detach(), last.bias.detach()[:, None]], 1).double()
    gram = features.T @ features / len(features)
    scale = RIDGE * gram.diagonal().mean()
    wanted = features.T @ (teacher.double() - features @ own.T) / len(features)
    eye = torch.eye(len(gram), dtype=torch.float64)
    solution = own + torch.linalg.solve(gram + scale * eye, wanted).T
    with torch.no_grad():
        last.weight.copy_(solution[:, :-1])
        last.bias.copy_(solution[:, -1])
    return model


class FirstBatches:
    """The first batches of an epoch."""

    def __init__(self, batches: Any, count: int) -> None:
        self._batches = batches
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        for _, batch in zip(range(self._count), self._batches, strict=False):
            yield batch


def stepped(study: Study, plan: Plan, steps: int) -> nn.Module:
    """The cut network after some steps of fine-tuning, on the same batches for every plan."""
    model = study.cut(plan)
    batches = training_batches(study.data.train, study.data, 128, seed=5)
    # A whole schedule in a few steps: its peak is lower than that of a training.
    config: TrainingConfig = replace(study.training, learning_rate=0.01)
    finetune(model, FirstBatches(batches, steps), teacher=study.base.model, config=config)
    return copy.deepcopy(model)


def top1_and_loss(model: nn.Module, images: ImageSet, data: Data) -> tuple[float, float]:
    """Percent of images, and the mean cross-entropy, in float32."""
    inputs, labels = all_images(images, data)
    outputs = logits(model, inputs)
    return 100 * (1 - errors(outputs, labels)), cross_entropy(outputs, labels)
