"""Models by name."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lcprune.errors import ModelError
from lcprune.models import build, model_names, state_sha256

SHAPE = (3, 32, 32)

FACTORY = """
from torch import nn

def plain():
    return nn.Linear(2, 3)

def asking(num_classes, input_shape, width=5):
    return nn.Linear(input_shape[0], num_classes + width)

def not_a_model():
    return 3

def failing():
    raise ValueError("two\\nlines")
"""


@pytest.fixture
def factory_file(tmp_path: Path) -> Path:
    path = tmp_path / "networks.py"
    path.write_text(FACTORY)
    return path


@pytest.mark.parametrize("name", [n for n in model_names() if n.startswith("cifar_")])
def test_own_models_yield_a_logit_per_class(name: str) -> None:
    model = build(name, classes=7, input_shape=SHAPE).eval()
    assert model(torch.zeros(1, *SHAPE)).shape == (1, 7)


def test_the_seed_decides_the_weights_and_the_global_generator_stays() -> None:
    before = torch.get_rng_state()
    first, same, other = (
        state_sha256(build("cifar_resnet20", classes=10, input_shape=SHAPE, seed=seed))
        for seed in (1, 1, 2)
    )
    assert first == same != other
    assert torch.equal(before, torch.get_rng_state())


def test_torchvision_by_name() -> None:
    pytest.importorskip("torchvision")
    model = build("torchvision/squeezenet1_1", classes=5, input_shape=(3, 64, 64)).eval()
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    whole = build("torchvision/squeezenet1_1", classes=None, input_shape=(3, 64, 64)).eval()
    assert whole(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_googlenet_comes_without_auxiliary_heads() -> None:
    pytest.importorskip("torchvision")
    model = build("torchvision/googlenet", classes=5, input_shape=(3, 64, 64)).train()
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
    assert not [key for key in model.state_dict() if key.startswith("aux")]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cifar_resnet57", "cifar_resnet56"),
        ("resnet50", "torchvision/resnet50"),
        ("yolo", "torchvision/NAME"),
        ("torchvision/resnet5", "torchvision/resnet50"),
        ("", "torchvision/NAME"),
    ],
)
def test_unknown_names_are_refused_with_a_hint(name: str, hint: str) -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(ModelError, match=hint) as caught:
        build(name, classes=10, input_shape=SHAPE)
    assert "\n" not in str(caught.value)


def test_torchvision_models_refuse_other_than_three_channels() -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(ModelError, match="3 channels"):
        build("torchvision/resnet18", classes=10, input_shape=(1, 8, 8))


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match="lcprune\\[timm\\]"):
        build("timm/resnet18", classes=10, input_shape=SHAPE)


def test_a_factory_in_a_file_gets_what_its_signature_names(factory_file: Path) -> None:
    plain = build(f"{factory_file}:plain", classes=10, input_shape=SHAPE)
    assert isinstance(plain, nn.Linear)
    assert plain.weight.shape == (3, 2)
    asking = build(f"{factory_file}:asking", classes=4, input_shape=SHAPE)
    assert isinstance(asking, nn.Linear)
    assert asking.weight.shape == (9, 3)


def test_the_last_colon_splits(factory_file: Path) -> None:
    folder = factory_file.parent / "a:b"
    folder.mkdir()
    moved = factory_file.rename(folder / "networks.py")
    assert isinstance(build(f"{moved}:plain", classes=10, input_shape=SHAPE), nn.Linear)


def test_a_factory_in_a_module_of_the_working_directory(
    factory_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = factory_file.rename(factory_file.with_name("networks_of_test_zoo.py"))
    monkeypatch.chdir(renamed.parent)
    assert isinstance(build("networks_of_test_zoo:plain", classes=10, input_shape=SHAPE), nn.Linear)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("not_a_model", "expected an nn.Module, got int"),
        ("failing", "ValueError: two lines"),
        ("absent", "no function 'absent'"),
    ],
)
def test_factories_that_fail_are_named_in_one_line(
    factory_file: Path, factory: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        build(f"{factory_file}:{factory}", classes=10, input_shape=SHAPE)
    assert "\n" not in str(caught.value)


def test_missing_files_and_modules_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        build(f"{tmp_path}/none.py:net", classes=10, input_shape=SHAPE)
    with pytest.raises(ModelError, match="no_such_package"):
        build("no_such_package.sub:net", classes=10, input_shape=SHAPE)


def backboned() -> list[str]:
    """Networks of torchvision that have a backbone of their own weights."""
    models = importlib.import_module("torchvision.models")
    takes = {n: inspect.signature(models.get_model_builder(n)) for n in models.list_models()}
    return [name for name, found in takes.items() if "weights_backbone" in found.parameters]


@pytest.mark.parametrize(
    "name",
    [
        "lraspp_mobilenet_v3_large",
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        pytest.param(None, marks=pytest.mark.thorough),
    ],
)
def test_nothing_is_downloaded_that_was_not_asked_for(
    name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def downloaded(*_: object, **__: object) -> None:
        raise AssertionError("something was downloaded")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", downloaded)
    monkeypatch.setattr("torch.hub.download_url_to_file", downloaded)
    names = backboned()
    assert len(names) >= 18
    for short in names if name is None else [name]:
        build(f"torchvision/{short}", classes=5, input_shape=(3, 64, 64))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "classes", "shape"),
    [
        (None, 10, (3, 8, 8)),
        ("cifar_resnet20", 0, (3, 8, 8)),
        ("cifar_resnet20", "ten", (3, 8, 8)),
        ("cifar_resnet20", 10**30, (3, 8, 8)),
        ("cifar_resnet20", 10, (3, 8)),
        ("cifar_resnet20", 10, (-3, 8, 8)),
        ("cifar_resnet20", 10, 3),
        ("torchvision/", 10, (3, 8, 8)),
        ("torchvision/" + "x" * 5000, 10, (3, 8, 8)),
        ("timm/hf-hub:who/what", 10, (3, 8, 8)),
        ("", 10, (3, 8, 8)),
    ],
)
def test_what_no_model_can_be_built_of(name: object, classes: object, shape: object) -> None:
    with pytest.raises(ModelError) as caught:
        build(name, classes=classes, input_shape=shape)  # type: ignore[arg-type]
    assert str(caught.value).isprintable()
