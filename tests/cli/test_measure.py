"""``lcprune measure``: a table from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcprune.cli import main
from lcprune.engines import LatencyTable, measure
from lcprune.engines import _measure as measuring

ASKED = ["measure", "digits_resnet", "--engine", "pytorch"]


def test_a_table_is_written_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.json"
    assert main([*ASKED, "--out", str(file), "--seconds", "4"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    table = LatencyTable.read(file)
    assert (table.engine, table.batch, table.threads) == ("pytorch", 1, 1)
    assert not table.whole  # there is no time for it
    for text in ("timing the operators of digits_resnet on 1x1x8x8", "measure ", "share",
                 " predicted", f"wrote {file}"):  # fmt: skip
        assert text in captured.out
    # Of what is there nothing is asked again.
    assert main([*ASKED, "--out", str(file), "--batch", "2"]) == 2
    assert "is a table of batch 1, expected 2" in capsys.readouterr().err


@pytest.mark.thorough
def test_with_time_left_the_whole_network_is_measured_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.json"
    assert main([*ASKED, "--out", str(file), "--seconds", "40"]) == 0
    assert len(LatencyTable.read(file).whole) == 1
    out = capsys.readouterr().out
    assert " predicted, " in out
    assert " measured (" in out


def test_an_interrupt_leaves_a_table_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "t.json"
    timed = measuring._Work._time

    def interrupted(work: measuring._Work, cell: measuring._Cell) -> int | None:
        if sum(map(len, work.table.times.values())) == 9:
            raise KeyboardInterrupt
        return timed(work, cell)

    monkeypatch.setattr(measuring._Work, "_time", interrupted)
    assert main([*ASKED, "--out", str(file)]) == 130
    assert f"{file} has what was measured: the same command goes on" in capsys.readouterr().err
    assert sum(map(len, LatencyTable.read(file).times.values())) == 9


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"--engine": "tensorrt"}, "tensorrt"),
        ({"--seconds": "0"}, "seconds"),
        ({"--threads": "0"}, "threads"),
        ({"--batch": "many"}, "batch"),
        ({"--input": "3x"}, "input"),
        ({"--skip": "nothing.*"}, "skip"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], told: str
) -> None:
    options = {"--engine": "pytorch", "--out": str(tmp_path / "t.json"), **change}
    assert main(["measure", "digits_resnet", *(w for o in options.items() for w in o)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "t.json").exists()


def test_a_file_that_is_no_table_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.json"
    file.write_text("mine")
    assert main([*ASKED, "--out", str(file)]) == 2
    assert "damaged" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_the_function_is_of_the_public_face() -> None:
    import lcprune

    assert lcprune.measure is measure
