"""The Python of the front page and of the docs, run as it stands there.

The blocks of a page run one after the other in one namespace, which holds what the pages say is
given. What is changed in them first is in ``CHANGED``, each with its reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lcprune as lp
from data.trees import smooth
from docs.pages import PAGES, code_blocks, name_of
from lcprune.models import build

Space = dict[str, Any]

CHANGED: dict[str, list[tuple[str, str, str]]] = {
    "README.md": [
        ("trials=400", "trials=2", "hundreds of trials take minutes"),
        ('"torchvision/resnet50"', '"digits_resnet"', "the model here is one of a second"),
    ],
    "docs/options.md": [
        (
            'budget=("macs=50%",)',
            'budget=("macs=50%",), trials=2, finetune_epochs=1',
            "a whole run takes a minute",
        ),
    ],
    "docs/own-fitness.md": [("trials=200", "trials=1", "hundreds of trials take minutes")],
    "docs/strategies.md": [("trials=30", "trials=3", "thirty trials take half a minute")],
    "docs/training.md": [
        ("finalists=6", "finalists=2, trials=4", "hundreds of trials take minutes"),
        ("epochs=10", "epochs=2", "ten epochs take half a minute"),
        ("steps=150", "steps=2", "150 steps take a minute for each of six plans"),
        (
            'device="cuda", processes=4',
            "processes=1",
            "there are no four GPUs; tests/training/test_distributed.py has the processes",
        ),
    ],
    "docs/scaling.md": [
        (
            "    executor=RayExecutor(workers=4),",
            "    trials=2,",
            "tests/searching/test_ray.py has Ray, and hundreds of trials take minutes",
        ),
    ],
}
"""By page: what is replaced in its blocks, by what, and why."""


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def classifier(name: str = "digits_resnet", shape: tuple[int, int, int] = (1, 8, 8)) -> Space:
    """What the pages call by these names."""
    model = build(name, classes=10, input_shape=shape).eval()
    pictures, labels = images(16, *shape), torch.arange(16) % 10
    graph = lp.trace(model, pictures[:1])

    def fitness(candidate: nn.Module) -> float:
        with torch.no_grad():
            return float(functional.cross_entropy(candidate.eval()(pictures), labels))

    return {
        "lp": lp,
        "torch": torch,
        "dataclasses": dataclasses,
        "functional": functional,
        "model": model,
        "example_input": pictures[:1],
        "images": pictures,
        "fitness": fitness,
        "judge": fitness,
        "batches": [pictures],
        "train_loader": [(pictures, labels)] * 8,
        "val_loader": [(pictures, labels)],
        "graph": graph,
        "saliency": lp.saliency(model, graph, "l2"),
        "budget": lp.Budget(macs=0.5),
        "small": build(name, classes=10, input_shape=shape, seed=1),
        "MyLoader": list,
    }


def residual() -> Space:
    return classifier("torchvision/resnet18", (3, 32, 32))


def detector() -> Space:
    """A segmenter for the first block of the page, a detector for the second."""
    models = pytest.importorskip("torchvision.models")
    segmenter = models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    ).eval()
    picture = images(2, 3, 64, 64)
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 48.0]]), "labels": torch.tensor([1])}
    return {
        "lp": lp,
        "functional": functional,
        "model": segmenter,
        "graph": lp.trace(segmenter, picture[:1]),
        "batches": [(picture, torch.randint(3, (2, 64, 64)))],
        "detector": models.detection.fcos_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64
        ),
        "recalibration": [picture],
        "validation": [([torch.rand(3, 64, 64)], [target])],
    }


def saved() -> Space:
    """A finished run in runs/resnet50."""
    space = classifier()
    plan = lp.rank(space["graph"], space["saliency"], space["budget"])
    small = lp.slim(space["model"], plan)
    Path("runs").mkdir()
    lp.save(
        small,
        "runs/resnet50",
        plan=plan,
        factory="digits_resnet",
        example_input=space["example_input"],
    )
    return space


def birds() -> Space:
    for number in range(10):
        folder = Path("birds") / ("jay", "wren")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        smooth(number, (200, 180)).save(folder / f"{number}.jpg")
    return {}


def metered() -> Space:
    """A meter that reads what is computed, roughly."""

    def joules(small: nn.Module) -> float:
        cost = lp.CostModel(lp.trace(small, images(1, 1, 8, 8)), ["energy"])
        return 1e-12 * cost.evaluate()["energy"]

    return classifier() | {"joules": joules}


def nothing() -> Space:
    return {}


GIVEN: dict[str, Callable[[], Space]] = {
    "docs/artifact.md": nothing,
    "docs/choosing-layers.md": residual,
    "docs/data.md": birds,
    "docs/options.md": nothing,
    "docs/own-fitness.md": detector,
    "docs/own-operator.md": nothing,
    "docs/quick-start.md": saved,
    "docs/tracing.md": metered,
}
"""What a page needs where that is not ``classifier``."""


def front_page(space: Space) -> None:
    result, small = space["result"], space["small"]
    assert result.trials == 2
    assert Path("search.sqlite").is_file()
    assert 0 < result.plan.cost["macs"] <= 0.5 * lp.CostModel(space["graph"]).evaluate()["macs"]
    assert sum(p.numel() for p in small.parameters()) == result.plan.cost["params"]
    assert space["error"] <= 1e-9


def detector_shrank(space: Space) -> None:
    small, result = space["small"], space["result"]
    assert isinstance(small, type(space["detector"]))
    assert result.loss > 0
    assert sum(p.numel() for p in small.parameters()) == result.plan.cost["params"]
    assert result.plan.cost["macs"] <= 0.5 * lp.CostModel(space["graph"]).evaluate()["macs"]
    with torch.no_grad():
        (found,) = small.eval()([torch.rand(3, 64, 64)])
    assert set(found) == {"boxes", "scores", "labels"}


def birds_are_there(space: Space) -> None:
    assert space["birds"]().classes == ("jay", "wren")


def a_run_is_done(_: Space) -> None:
    assert Path("out/summary.json").is_file()


def logits_came(space: Space) -> None:
    assert space["logits"].shape == (16, 10)


def joules_are_within(space: Space) -> None:
    """Whatever the prices are: the plan has 60 % of what they make of the whole network."""
    plan, energy = space["plan"], space["energy"]
    whole = lp.CostModel(space["graph"], [energy]).evaluate()["energy"]
    assert 0.5 * whole < plan.cost["energy"] <= 0.6 * whole
    assert energy.error < 0.2


def three_trials(space: Space) -> None:
    assert space["result"].trials == 3


LATER: dict[str, Callable[[Space], None]] = {
    "README.md": front_page,
    "docs/own-fitness.md": detector_shrank,
    "docs/data.md": birds_are_there,
    "docs/options.md": a_run_is_done,
    "docs/quick-start.md": logits_came,
    "docs/strategies.md": three_trials,
    "docs/tracing.md": joules_are_within,
}
"""What holds after a page has run."""

SLOW = {
    "docs/own-fitness.md",
    "docs/options.md",
    "docs/choosing-layers.md",
    "docs/export.md",
    "docs/latency.md",
}

TRIED = [page for page in PAGES if code_blocks(page)]


def program(page: Path) -> str:
    """The blocks of a page, changed."""
    text = "\n".join(code_blocks(page))
    for old, new, reason in CHANGED.get(name_of(page), []):
        assert reason
        assert old in text, f"{name_of(page)} has no {old} any more"
        text = text.replace(old, new)
    return text


def test_what_is_changed_or_given_belongs_to_a_page() -> None:
    assert {*CHANGED, *GIVEN, *LATER, *SLOW} <= {name_of(page) for page in TRIED}


@pytest.mark.filterwarnings("ignore::lcprune.LcpruneWarning")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.thorough) if name_of(page) in SLOW else page
        for page in TRIED
    ],
    ids=name_of,
)
def test_the_python_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = name_of(page)
    text = program(page)
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        space = GIVEN.get(name, classifier)()
        exec(compile(text, name, "exec"), space)
        LATER.get(name, lambda _: None)(space)
