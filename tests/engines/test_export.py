"""What is published is what was checked, whole; else there is nothing, and a line that says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import lcprune as lp
from engines.networks import (
    Undecided,
    Unheard,
    classifier,
    engine_or_skip,
    every_engine,
    images,
    keywords,
)
from lcprune.engines import FORMATS, SUFFIXES, _pytorch, engine_named
from lcprune.engines._parity import TOLERANCE
from lcprune.errors import InputError, ModelError, RunError, VerificationError

X = images(1, 1, 9, 9)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("engine", every_engine())
def test_a_network_in_every_format(
    engine: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine_or_skip(engine)
    [format] = [format for format, by in FORMATS.items() if by == engine]
    path = tmp_path / "deep" / f"net{SUFFIXES[format]}"
    model = classifier().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    written = lp.export(
        model, path, format=format, example_input=X, dynamic_batch=format != "executorch"
    )
    assert (written.path, written.format, written.engine) == (path, format, engine)
    assert 0 <= written.error <= TOLERANCE
    assert names(path.parent) == {file.name for file in written.files}
    assert path in written.files
    assert len(written.files) == (2 if format == "openvino" else 1)
    assert written.bytes == sum(file.stat().st_size for file in written.files)
    # The model is as it was; the file is of eval mode.
    assert model.training
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    [found] = engine_named(engine).open(path)(X)
    torch.testing.assert_close(found, model.eval()(X).detach(), rtol=1e-5, atol=1e-5)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("engine", every_engine())
def test_a_dynamic_batch_is_tried_at_1_7_and_128(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [format] = [format for format, by in FORMATS.items() if by == engine]
    tried: list[list[int]] = []
    model = classifier()

    def run(engine: Any, path: Path, cases: Any) -> Any:
        tried.append([len(case[0]) for case in cases])
        return [[model(*case).detach()] for case in cases]

    def write(self: Any, model: nn.Module, example: Any, path: Path, **how: Any) -> None:
        path.write_bytes(b"a file")

    monkeypatch.setattr("lcprune.engines._engine._is_there", lambda package: True)
    monkeypatch.setattr("lcprune.engines._parity._in_fresh_process", run)
    monkeypatch.setattr(type(engine_named(engine)), "write", write)
    for dynamic in (True, False):
        lp.export(
            model,
            tmp_path / f"net{SUFFIXES[format]}",
            format=format,
            example_input=X,
            dynamic_batch=dynamic,
        )
    assert tried == [[1, 7, 128], [1, 1, 1]]


@pytest.mark.thorough
def test_keywords_and_parametrised_weights(tmp_path: Path) -> None:
    model = keywords()
    parametrizations.weight_norm(model.head)
    written = lp.export(
        model,
        tmp_path / "net.pt2",
        format="pt2",
        example_input=images(1, 2, 6, 6),
        example_kwargs={"scale": torch.ones(1), "power": 1, "mask": None},
        dynamic_batch=True,
    )
    program = torch.export.load(written.path)
    assert not [name for name in program.state_dict if "original" in name]


def test_a_pt2_file_holds_no_pickle(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "net.pt2"
    _pytorch.ENGINE.write(classifier(), lp.Inputs(X), path)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            assert not entry.filename.endswith("pkl")
            assert not (entry.filename.endswith((".pt", ".pth")) and entry.file_size)
            assert b"\x80\x02" not in archive.read(entry)[:2]


@pytest.mark.thorough
def test_what_can_not_be_opened_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"the old one")
    monkeypatch.setattr(
        _pytorch.PyTorch, "write", lambda self, model, example, path, **_: path.write_bytes(b"none")
    )
    with pytest.raises(VerificationError, match="pytorch can't run what was exported") as caught:
        lp.export(classifier(), path, format="pt2", example_input=X)
    assert str(caught.value).isprintable()
    assert names(tmp_path) == {"net.pt2"}
    assert path.read_bytes() == b"the old one"


def test_what_differs_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"the old one")
    write = _pytorch.PyTorch.write

    def wrong(self: Any, model: nn.Module, example: Any, path: Path, **how: Any) -> None:
        other = classifier()
        other[-1].bias.data += 0.01
        write(self, other, example, path, **how)

    monkeypatch.setattr(_pytorch.PyTorch, "write", wrong)
    with pytest.raises(VerificationError, match=r"pytorch differs from PyTorch by 0.0"):
        lp.export(classifier(), path, format="pt2", example_input=X)
    assert names(tmp_path) == {"net.pt2"}
    assert path.read_bytes() == b"the old one"


def test_an_operator_that_is_missing_leaves_nothing(tmp_path: Path) -> None:
    engine_or_skip("onnxruntime")
    with pytest.raises(ModelError, match=r"onnx can't take the operator .*bessel_j0"):
        lp.export(Unheard(), tmp_path / "net.onnx", example_input=images(1, 3))
    assert names(tmp_path) == set()


def test_a_model_that_decides_by_values_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match=r"torch.export can't follow the model") as caught:
        lp.export(Undecided(), tmp_path / "net.pt2", format="pt2", example_input=images(1, 3))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    assert names(tmp_path) == set()
    assert capfd.readouterr() == ("", "")


class Fixed(nn.Module):
    """Has the number of its samples in its code."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1)


def test_a_batch_that_can_not_be_dynamic(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"format": "pt2", "dynamic_batch": True}
    with pytest.raises(ModelError, match="with any batch size"):
        lp.export(Fixed(), tmp_path / "net.pt2", example_input=images(2, 3, 2), **arguments)
    with pytest.raises(InputError, match="no batch dimension"):
        lp.export(nn.ReLU(), tmp_path / "net.pt2", example_input=torch.tensor(1.0), **arguments)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    model = classifier()
    model[-1].bias.data[1] = value
    with pytest.raises(ModelError, match="not finite"):
        lp.export(model, tmp_path / "net.pt2", format="pt2", example_input=X)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("limit", [0, 3000])
def test_a_full_disk(tmp_path: Path, limit: int) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "net.pt2"
    path.write_bytes(b"the old one")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(RunError, match=r"can't write to .*File too large"):
            lp.export(classifier(), path, format="pt2", example_input=X)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == {"net.pt2"}
    assert path.read_bytes() == b"the old one"


def test_a_disk_that_is_full_for_a_library_that_says_nothing(tmp_path: Path) -> None:
    """OpenVINO writes its files itself."""
    engine_or_skip("openvino")
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, hard))
    try:
        with pytest.raises(RunError, match=r"can't write to .*File too large"):
            lp.export(classifier(), tmp_path / "n.xml", format="openvino", example_input=X)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == set()


def test_places_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder.pt2").mkdir()
    (tmp_path / "file").write_text("")
    model = classifier()
    for path, said in [
        ("folder.pt2", "it is a directory"),
        ("file/net.pt2", "can't write"),
        ("net.onnx", r"expected the name of a file that ends with \.pt2"),
        (".pt2", r"expected the name of a file that ends with \.pt2"),
    ]:
        with pytest.raises(InputError, match=said):
            lp.export(model, tmp_path / path, format="pt2", example_input=X)
    assert names(tmp_path) == {"folder.pt2", "file"}


@pytest.mark.thorough
def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("the user's")
    path = tmp_path / "net.pt2"
    path.symlink_to(tmp_path / "mine")
    lp.export(classifier(), path, format="pt2", example_input=X)
    assert (tmp_path / "mine").read_text() == "the user's"
    assert not path.is_symlink()


@pytest.mark.thorough
def test_two_files_are_never_of_two_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it ends between the two, the one that names the other is not there."""
    engine_or_skip("openvino")
    path = tmp_path / "net.xml"
    lp.export(classifier(), path, format="openvino", example_input=X)
    replaced = Path.replace

    def ends(self: Path, target: Any) -> Any:
        if str(target) == str(path):
            raise OSError(5, "the disk is gone")
        return replaced(self, target)

    monkeypatch.setattr(Path, "replace", ends)
    with pytest.raises(RunError, match="the disk is gone"):
        lp.export(classifier(), path, format="openvino", example_input=X)
    assert names(tmp_path) == {"net.bin"}


@pytest.mark.thorough
def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    """The fresh process knows nothing of the main module, nor of modules in the working folder."""
    (tmp_path / "torch.py").write_text("raise SystemExit('the wrong one')")
    script = tmp_path / "folder" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "import torch, lcprune as lp\n"
        "print('once')\n"
        "model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 2))\n"
        "lp.export(model, 'net.pt2', format='pt2', example_input=torch.randn(1, 2, 4))\n"
    )
    ended = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "once\n", "")
    assert (tmp_path / "net.pt2").is_file()
