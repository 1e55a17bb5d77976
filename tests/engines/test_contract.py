"""What every engine keeps: the file computes what the network does, and nothing is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lcprune.engines as engines_
from engines.networks import Unheard, classifier, engine_or_skip, every_engine, images, keywords
from lcprune.engines import ENGINES, FORMATS, SUFFIXES, engine_named
from lcprune.errors import InputError, ModelError
from lcprune.tracing import Inputs

EVERY = pytest.mark.parametrize("name", every_engine())


def test_names_formats_and_suffixes_are_those_of_the_engines() -> None:
    assert set(FORMATS.values()) == set(ENGINES)
    assert set(SUFFIXES) == set(FORMATS)
    for format, name in FORMATS.items():
        module = __import__(f"lcprune.engines._{name}", fromlist=["ENGINE"])
        engine = module.ENGINE
        assert (engine.name, engine.format, engine.suffix) == (name, format, SUFFIXES[format])


def test_the_public_face_is_what_is_there() -> None:
    assert sorted(dir(engines_)) == sorted(engines_.__all__)
    assert all(getattr(engines_, name) is not None for name in engines_.__all__)


@EVERY
def test_a_file_computes_what_the_network_does(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine, model, x = engine_or_skip(name), classifier(), images(2, 1, 9, 9)
    path = tmp_path / f"net{engine.suffix}"
    engine.write(model, Inputs(x), path)
    run = engine.open(path)
    for y in (x, images(2, 1, 9, 9, seed=1)):
        [found] = run(y)
        torch.testing.assert_close(found, model(y).detach(), rtol=1e-5, atol=1e-5)
    # What was given out is the caller's: another run leaves it as it is.
    [kept] = run(x)
    before = kept.clone()
    run(images(2, 1, 9, 9, seed=2))
    assert torch.equal(kept, before)
    assert capfd.readouterr() == ("", "")
    assert not any(
        str(Path(__file__).parent).encode() in f.read_bytes() for f in tmp_path.iterdir()
    )


@EVERY
def test_arguments_by_keyword_and_nested_outputs(name: str, tmp_path: Path) -> None:
    engine, model = engine_or_skip(name), keywords()
    image, scale = images(3, 2, 6, 6), images(3, seed=4).abs()
    example = Inputs(image, scale=scale, power=2)
    path = tmp_path / f"net{engine.suffix}"
    engine.write(model, example, path)
    wanted = model(image, scale=scale, power=2)
    found = engine.open(path, 2)(image, scale)
    assert len(found) == 2
    for ours, theirs in zip((wanted["logits"], wanted["features"][0]), found, strict=True):
        torch.testing.assert_close(theirs, ours.detach(), rtol=1e-5, atol=1e-5)


@EVERY
def test_any_number_of_samples(name: str, tmp_path: Path) -> None:
    engine, model, x = engine_or_skip(name), classifier(), images(1, 1, 9, 9)
    path = tmp_path / f"net{engine.suffix}"
    if name == "executorch":
        with pytest.raises(InputError, match="expected no dynamic batch"):
            engine.write(model, Inputs(x), path, dynamic_batch=True)
        return
    engine.write(model, Inputs(x), path, dynamic_batch=True)
    run = engine.open(path)
    for count in (1, 5):
        y = images(count, 1, 9, 9, seed=count)
        torch.testing.assert_close(run(y)[0], model(y).detach(), rtol=1e-5, atol=1e-5)


@EVERY
def test_the_operator_that_an_exporter_lacks_is_named(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine, path = engine_or_skip(name), tmp_path / "net"
    if name == "pytorch":
        pytest.skip("it has all operators of PyTorch")
    with pytest.raises(ModelError, match=r"operator .*bessel_j0") as caught:
        engine.write(Unheard(), Inputs(images(1, 3)), path)
    assert str(caught.value).startswith(engine.format)
    assert str(caught.value).isprintable()
    assert not path.exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_that_is_missing_is_told_in_a_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcprune.engines._engine._is_there", lambda package: False)
    if name == "pytorch":
        assert engine_named(name).name == name
        return
    with pytest.raises(InputError, match=rf"pip install 'lcprune\[{name}\]'"):
        engine_named(name)


def test_an_engine_that_nobody_has() -> None:
    with pytest.raises(InputError, match="expected one of pytorch, onnxruntime"):
        engine_named("tflite")


def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    """Both packages would send their use on import."""
    import os
    import subprocess
    import sys

    engine_or_skip("onnxruntime")
    engine_or_skip("openvino")
    program = (
        "import os, sys\n"
        "from lcprune.engines import _onnxruntime, _openvino\n"
        "_onnxruntime._imported(), _openvino._imported()\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
        "import openvino.tools.ovc.telemetry_utils as utils\n"
        "assert utils.tm.__name__.endswith('telemetry_stub'), utils.tm\n"
        "import openvino.tools.ovc.convert_impl as convert\n"
        "assert convert.tm.__name__.endswith('telemetry_stub'), convert.tm\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
