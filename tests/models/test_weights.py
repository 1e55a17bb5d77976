"""Weights are checked before they are used."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lcprune.data import load_data
from lcprune.errors import WeightsError
from lcprune.models import build, load_weights, state_sha256
from lcprune.training import evaluate_top1

State = dict[str, Tensor]


def network(seed: int = 0) -> nn.Module:
    return build("digits_resnet", classes=10, input_shape=(1, 8, 8), seed=seed)


def write(state: State, path: Path) -> str:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_state_that_was_written_loads_whole(tmp_path: Path, name: str) -> None:
    source, target = network(1), network(2)
    load_weights(target, write(source.state_dict(), tmp_path / name), "digits_resnet")
    assert state_sha256(target) == state_sha256(source)


def test_wrapped_states_load(tmp_path: Path) -> None:
    source, target = network(1), network(2)
    wrapped = {"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}
    torch.save(wrapped, tmp_path / "weights.pth")
    load_weights(target, str(tmp_path / "weights.pth"), "digits_resnet")
    assert state_sha256(target) == state_sha256(source)


def test_only_the_count_of_batches_may_be_missing(tmp_path: Path) -> None:
    state = network(1).state_dict()
    short = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    target = network(2)
    load_weights(target, write(short, tmp_path / "w.safetensors"), "digits_resnet")
    assert all(torch.equal(target.state_dict()[key], value) for key, value in short.items())


def test_the_count_of_batches_may_be_a_float_and_nothing_odder(tmp_path: Path) -> None:
    state, key = network(1).state_dict(), "bn1.num_batches_tracked"
    target = network(2)
    load_weights(target, write({**state, key: torch.tensor(3.0)}, tmp_path / "w.pt"), "x")
    assert target.state_dict()[key] == 3
    for odd in (torch.tensor(1 + 2j), torch.tensor(float("nan")), torch.tensor(float("inf"))):
        with pytest.raises(WeightsError, match=key):
            load_weights(target, write({**state, key: odd}, tmp_path / "w.pt"), "x")


def test_random_leaves_the_model_alone() -> None:
    model = network()
    before = state_sha256(model)
    load_weights(model, "random", "digits_resnet")
    assert state_sha256(model) == before


def missing(state: State) -> None:
    del state["bn1.weight"], state["layer1.0.bn1.weight"]


def unexpected(state: State) -> None:
    state["head.weight"] = torch.zeros(1)


def misshapen(state: State) -> None:
    state["linear.weight"] = torch.zeros(5, 64)


def not_a_number(state: State) -> None:
    state["layer2.0.conv1.weight"][3, 0, 1, 1] = float("nan")


def infinite(state: State) -> None:
    state["linear.bias"][3] = float("inf")


def scalar(state: State) -> None:
    state["linear.bias"] = torch.tensor(1.0)


def too_large(state: State) -> None:
    state["linear.bias"] = state["linear.bias"].double()
    state["linear.bias"][3] = 1e300  # finite, but not in the network's own float32


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing, "key 'bn1.weight' is missing"),
        (unexpected, "unexpected key 'head.weight'"),
        (misshapen, r"'linear.weight' has shape \(5, 64\), expected \(10, 64\)"),
        (not_a_number, "'layer2.0.conv1.weight' holds values that are not finite"),
        (infinite, "'linear.bias' holds values that are not finite"),
        (scalar, r"'linear.bias' has shape \(\), expected \(10,\)"),
        (too_large, "'linear.bias' holds values that are not finite"),
    ],
)
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_what_does_not_fit_is_named_and_changes_nothing(
    tmp_path: Path, name: str, damage: object, message: str
) -> None:
    state = {key: value.clone() for key, value in network(1).state_dict().items()}
    assert callable(damage)
    damage(state)
    target = network(2)
    before = state_sha256(target)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(target, write(state, tmp_path / name), "digits_resnet")
    assert "\n" not in str(caught.value)
    assert state_sha256(target) == before


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("1 / 0",))


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    whole = Path(write(network().state_dict(), tmp_path / "w.safetensors")).read_bytes()
    torch.save({"a": Malicious()}, tmp_path / "code.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": 1}, tmp_path / "number.pt")
    for name, content in {
        "none.safetensors": None,
        "cut.safetensors": whole[: len(whole) // 2],
        "empty.safetensors": b"",
        "empty.pt": b"",
        "noise.pt": bytes(range(256)) * 8,
        "code.pt": None,
        "list.pt": None,
        "number.pt": None,
    }.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=name) as caught:
            load_weights(network(), str(tmp_path / name), "digits_resnet")
        assert "\n" not in str(caught.value)


def test_own_models_have_no_default_weights() -> None:
    with pytest.raises(WeightsError, match="give a file"):
        load_weights(network(), "default", "digits_resnet")


def test_default_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("<urlopen error\nno route>")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", unreachable)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    model = build("torchvision/squeezenet1_1", classes=None, input_shape=(3, 64, 64))
    with pytest.raises(WeightsError, match="can't be had: OSError: <urlopen error no route>"):
        load_weights(model, "default", "torchvision/squeezenet1_1")


def test_default_weights_leave_auxiliary_heads_out(monkeypatch: pytest.MonkeyPatch) -> None:
    models = pytest.importorskip("torchvision.models")
    whole = models.googlenet(weights=None, init_weights=False, aux_logits=True).state_dict()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: dict(whole)
    )
    model = build("torchvision/googlenet", classes=None, input_shape=(3, 64, 64))
    load_weights(model, "default", "torchvision/googlenet")
    assert torch.equal(model.state_dict()["fc.weight"], whole["fc.weight"])


def test_the_hash_sees_names_types_shapes_and_values() -> None:
    def digest(**tensors: Tensor) -> str:
        module = nn.Module()
        for name, value in tensors.items():
            module.register_buffer(name, value)
        return state_sha256(module)

    zero = torch.zeros(4)
    others = [
        digest(a=zero),
        digest(b=zero),
        digest(a=zero.view(2, 2)),
        digest(a=zero.to(torch.int32)),
        digest(a=zero.bfloat16()),
        digest(a=torch.tensor([0.0, 0, 0, -0.0])),
        digest(a=zero, b=zero),
    ]
    assert len(set(others)) == len(others)
    assert digest(a=zero) == digest(a=torch.zeros(8)[::2])


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "least"),
    [("cifar_resnet20", 88.0), ("cifar_resnet56", 90.0), ("cifar_mobilenet_v2", 85.0)],
)
def test_published_weights_classify_the_test_images(
    real_data: Path, tmp_path: Path, name: str, least: float
) -> None:
    per_class = 40
    for number in (1, 2, 3):
        with zipfile.ZipFile(real_data / "data" / f"cifar10-{number}of3.zip") as archive:
            seen: dict[str, int] = {}
            for entry in sorted(archive.namelist()):
                folder = entry.rpartition("/")[0]
                seen[folder] = seen.get(folder, 0) + 1
                wanted = per_class if folder.startswith("test/") else 2
                if seen[folder] <= wanted and entry.endswith(".png"):
                    archive.extract(entry, tmp_path)
    data = load_data(f"cifar10:{tmp_path}")
    model = build(name, classes=10, input_shape=data.input_shape)
    weights = real_data / "weights" / f"cifar10_{name.removeprefix('cifar_')}.safetensors"
    load_weights(model, str(weights), name)
    assert evaluate_top1(model, data.test, data) >= least


def other_classes(classes: int) -> nn.Module:
    return build("digits_resnet", classes=classes, input_shape=(1, 8, 8), seed=3)


def test_a_new_head_stays_as_it_was_built_and_the_rest_is_loaded(tmp_path: Path) -> None:
    source, target = network(1), other_classes(4)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    path = write(source.state_dict(), tmp_path / "w.safetensors")
    head = load_weights(target, path, "digits_resnet", classes=4, new_head=True)
    assert set(head) == {"linear.weight", "linear.bias"}
    for key, value in target.state_dict().items():
        assert torch.equal(value, before[key] if key in head else source.state_dict()[key])


def wider(state: State) -> None:
    state["conv1.weight"] = torch.zeros(20, 1, 3, 3)


@pytest.mark.parametrize("damage", [missing, unexpected, not_a_number, wider])
def test_a_new_head_excuses_nothing_else(tmp_path: Path, damage: Callable[[State], None]) -> None:
    state = {key: value.clone() for key, value in network(1).state_dict().items()}
    damage(state)
    target = other_classes(4)
    before = state_sha256(target)
    with pytest.raises(WeightsError):
        load_weights(
            target,
            write(state, tmp_path / "w.safetensors"),
            "digits_resnet",
            classes=4,
            new_head=True,
        )
    assert state_sha256(target) == before


def test_where_the_classes_alone_differ_the_way_out_is_named(tmp_path: Path) -> None:
    path = write(network(1).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"weights for 10 classes \(train --new-head"):
        load_weights(other_classes(4), path, "digits_resnet", classes=4)
    state = network(1).state_dict()
    wider(state)
    path = write(state, tmp_path / "wider.safetensors")
    with pytest.raises(WeightsError, match=r"\(16, 1, 3, 3\)$"):
        load_weights(network(2), path, "digits_resnet", classes=10)
