"""Files in int8: what they are calibrated on, how near they come, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lcprune as lp
from engines.networks import (
    INT8_ENGINES,
    classifier,
    engine_or_skip,
    images,
    keywords,
)
from lcprune.data import Data, Images
from lcprune.engines import (
    FORMATS,
    INT8,
    SUFFIXES,
    _onnxruntime,
    _parity,
    calibration_images,
    engine_named,
)
from lcprune.engines._calibration import calibration
from lcprune.engines._engine import input_tensors
from lcprune.engines._parity import root_mean_square
from lcprune.errors import InputError, VerificationError
from lcprune.tracing import Inputs

X = images(1, 1, 9, 9)
BATCHES = [images(40, 1, 9, 9, seed=3), images(7, 1, 9, 9, seed=4)]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("engine", INT8_ENGINES)
def test_a_network_in_int8(engine: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine_or_skip(engine, int8=True)
    [format] = [format for format, by in FORMATS.items() if by == engine]
    path = tmp_path / f"net{SUFFIXES[format]}"
    model = wide().train()
    dynamic = engine != "executorch"
    written = lp.export(
        model, path, format=format, example_input=X, dynamic_batch=dynamic, int8=BATCHES
    )
    assert names(tmp_path) == {file.name for file in written.files}
    assert written.bytes < 0.5 * sum(4 * p.numel() for p in model.parameters())
    assert written.agreement is not None
    assert written.agreement > 0.9
    assert model.training
    run = engine_named(engine).open(path)
    fresh = images(5, 1, 9, 9, seed=9)
    with torch.no_grad():
        wanted = model.eval()(fresh)
    found = torch.cat([run(x[None])[0] for x in fresh])
    # In 8 bits, and not in 32: near, but not equal to rounding.
    assert 1e-4 < root_mean_square([wanted], [found]) < 0.1
    assert 1e-4 < written.error < 0.1
    if dynamic:
        torch.testing.assert_close(run(fresh)[0], found)
    assert capfd.readouterr() == ("", "")
    assert not any(str(Path(__file__).parent).encode() in f.read_bytes() for f in written.files)


def wide() -> nn.Module:
    """Weights that outweigh what a file holds beside them."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 96, 3, stride=2), nn.BatchNorm2d(96), nn.Hardswish(),
        nn.Conv2d(96, 96, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 4),
    ).eval()  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("engine", INT8_ENGINES)
def test_arguments_by_keyword_in_int8(engine: str, tmp_path: Path) -> None:
    engine_or_skip(engine, int8=True)
    [format] = [format for format, by in FORMATS.items() if by == engine]
    batches = [
        Inputs(images(12, 2, 6, 6, seed=n), scale=images(12, seed=n).abs()) for n in range(5)
    ]
    written = lp.export(
        keywords(),
        tmp_path / f"net{SUFFIXES[format]}",
        format=format,
        example_input=images(3, 2, 6, 6),
        example_kwargs={"scale": images(3, seed=4).abs(), "power": 2},
        int8=batches,
    )
    assert 1e-4 < written.error < 0.2
    assert written.agreement is not None
    assert written.agreement > 0.8


def test_all_samples_are_taken_in_batches_of_the_example() -> None:
    batches = [images(5, 2, 3), images(4, 2, 3, seed=1)]
    parts = calibration(batches, Inputs(images(2, 2, 3, seed=2)))
    found = [input_tensors(part)[0] for part in parts]
    assert [tuple(x.shape) for x in found] == [(2, 2, 3)] * 5
    first = batches[0]
    assert torch.equal(torch.cat(found[:3]), torch.cat([first, first[:1]]))
    assert torch.equal(torch.cat(found[3:]), batches[1])
    # A tensor is one batch, not many samples without a batch.
    alone = calibration(first, Inputs(images(1, 2, 3)))
    assert len(alone) == 5
    # What every call gets beside the samples is the example's.
    whole = calibration([Inputs(first)], Inputs(images(1, 2, 3), scale=2.0))
    assert all(part.kwargs == {"scale": 2.0} for part in whole)
    # Without a batch a call is a sample.
    assert len(calibration([torch.tensor(1.0), torch.tensor(2.0)], Inputs(torch.tensor(0.0)))) == 2


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([], "int8 holds no sample"),
        (iter(()), "int8 holds no sample"),
        (3, "expected batches of the model's inputs"),
        ("images", "expected batches of the model's inputs"),
        ([None], "calibration batch 0 is of type NoneType"),
        ([[]], "calibration batch 0 is an empty list"),
        ([images(0, 1, 9, 9)], "calibration batch 0 has an empty tensor"),
        ([images(2, 1, 9, 9), images(2, 1, 9, 8)], "calibration batch 1 holds 1x1x9x8 float32"),
        ([images(2, 3, 9, 9)], "holds 1x3x9x9 float32 a call, expected 1x1x9x9 float32"),
        ([images(9, 9)], "holds 1x9 float32 a call, expected 1x1x9x9"),
        ([images(2, 1, 9, 9).double()], "holds 1x1x9x9 float64 a call"),
        ([torch.zeros(2, 1, 9, 9, dtype=torch.uint8)], "holds 1x1x9x9 uint8 a call"),
        ([(X, X)], "holds 1x1x9x9 float32 and 1x1x9x9 float32 a call"),
        ([X, X * float("nan")], "calibration batch 1 holds NaN"),
        ([images(3, 1, 9, 9) / 0], "holds NaN or infinity"),
    ],
)
def test_a_calibration_set_that_is_none_is_refused_and_nothing_is_written(
    batches: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcprune.engines._engine._is_there", lambda package: True)
    with pytest.raises(InputError, match=said) as caught:
        lp.export(classifier(), tmp_path / "net.onnx", example_input=X, int8=batches)
    assert "expected" in str(caught.value)
    assert names(tmp_path) == set()


def test_one_value_that_is_not_finite_is_found_in_the_last_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcprune.engines._engine._is_there", lambda package: True)
    for value in (float("nan"), float("inf")):
        wrong = images(9, 1, 9, 9)
        wrong[8, 0, 8, 8] = value
        with pytest.raises(InputError, match="batch 1 holds NaN or infinity, expected finite"):
            lp.export(classifier(), tmp_path / "net.onnx", example_input=X, int8=[X, wrong])
    assert names(tmp_path) == set()


def test_formats_that_have_no_int8_say_which_have(tmp_path: Path) -> None:
    assert set(INT8) == set(FORMATS) - {"pt2"}
    with pytest.raises(InputError, match="pt2 files are not written in int8, expected one of onnx"):
        lp.export(classifier(), tmp_path / "net.pt2", format="pt2", example_input=X, int8=[X])
    assert names(tmp_path) == set()


def test_what_int8_needs_beside_the_engine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcprune.engines._engine._is_there", lambda package: package != "nncf")
    assert engine_named("openvino").name == "openvino"
    with pytest.raises(InputError, match=r"nncf for int8.*pip install 'lcprune\[openvino\]'"):
        engine_named("openvino", int8=True)


def test_a_file_that_has_nothing_of_the_network_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"the old one")
    model = classifier()
    monkeypatch.setattr("lcprune.engines._engine._is_there", lambda package: True)
    monkeypatch.setattr(
        _onnxruntime.OnnxRuntime,
        "write",
        lambda self, model, example, path, **how: path.write_bytes(b"another"),
    )

    def give(turn: Any) -> None:
        def run(engine: Any, path: Path, cases: Any) -> list[list[Tensor]]:
            return [[turn(model(*case).detach())] for case in cases]

        monkeypatch.setattr(_parity, "_in_fresh_process", run)

    for turn, said in (
        (lambda x: -x, "in int8 is as far from PyTorch as zeros are"),
        (torch.zeros_like, "in int8 is as far from PyTorch as zeros are"),
        (lambda x: x / 0, "values in int8 that are not finite"),
        (lambda x: x[:, :2], "outputs of other shapes"),
    ):
        give(turn)
        with pytest.raises(VerificationError, match=said):
            lp.export(model, path, example_input=X, int8=BATCHES)
        assert names(tmp_path) == {"net.onnx"}
        assert path.read_bytes() == b"the old one"
    give(lambda x: 1.01 * x)
    written = lp.export(model, path, example_input=X, int8=BATCHES)
    assert (written.error, written.agreement) == (pytest.approx(0.01, rel=1e-3), 1)
    signs = iter([-1] * 4 + [1] * 43)  # four get another class
    give(lambda x: next(signs) * x)
    written = lp.export(model, path, example_input=X, int8=BATCHES)
    assert written.agreement == pytest.approx(43 / 47)


def test_the_error_is_one_where_zeros_are_given() -> None:
    wanted = [images(4, 3), images(2, 3, seed=1)]
    assert root_mean_square(wanted, [torch.zeros_like(x) for x in wanted]) == pytest.approx(1)
    assert root_mean_square(wanted, [1.1 * x for x in wanted]) == pytest.approx(0.1)
    assert root_mean_square(wanted, wanted) == 0
    assert root_mean_square([torch.zeros(3)], [torch.full((3,), 2.0)]) == 2


def numbered(count: int, first: int) -> Images:
    pixels = torch.arange(first, first + count, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return Images(pixels.expand(-1, 1, 2, 2).contiguous(), torch.arange(count) % 2)


def test_calibration_images_are_training_images_chosen_by_the_seed() -> None:
    data = Data(numbered(100, 0), numbered(20, 150), ("a", "b"), (0.0,), (1.0,), (1, 2, 2))

    def chosen(**how: int) -> list[int]:
        x: Tensor = calibration_images(data, **how)
        assert x.shape[1:] == (1, 2, 2)
        return (x[:, 0, 0, 0] * 255).round().int().tolist()

    some = chosen(count=30)
    assert len(set(some)) == 30
    assert max(some) < 100
    assert some == chosen(count=30)
    assert some != chosen(count=30, seed=1)
    assert chosen() == list(range(100))  # all, where there are no more
    for wrong in ({"count": 0}, {"seed": -1}, {"count": 1.5}):
        with pytest.raises(InputError, match="expected"):
            chosen(**wrong)  # type: ignore[arg-type]
