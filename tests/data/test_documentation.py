"""The code in docs/data.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data.trees import smooth
from lcprune.data import ImageFiles, load_data, training_batches

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def test_the_factory_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "birds.py").write_text(code)
    for index in range(10):
        folder = tmp_path / "birds" / ("jay", "wren")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        smooth(index, (200, 180)).save(folder / f"{index}.jpg")
    monkeypatch.chdir(tmp_path)
    data = load_data("birds.py:birds")
    assert data.classes == ("jay", "wren")
    assert data.input_shape == (3, 160, 160)
    assert isinstance(data.train, ImageFiles)
    assert isinstance(data.test, ImageFiles)
    assert [file.name for file in data.test.files] == ["0.jpg", "1.jpg"]
    inputs, _ = next(iter(training_batches(data.train, data, 8)))
    assert inputs.shape == (8, 3, 160, 160)
