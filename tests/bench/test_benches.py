"""Every bench answers --help and prints its table; the runner keeps rows and stops in time."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import runner

BENCH = Path(runner.__file__).parent
SCRIPTS = sorted(p.stem for p in BENCH.glob("*.py") if "\ndef main() -> None:" in p.read_text())
TABLES = [s for s in SCRIPTS if "__doc__, KEYS, table)" in (BENCH / f"{s}.py").read_text()]
MODULES = {path.stem for path in BENCH.glob("*.py")}
NEEDS = {"side_by_side": "torch_pruning", "trace_time": "torchvision"}


def script(name: str) -> Any:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    return importlib.import_module(name)


def test_there_are_benches() -> None:
    assert len(SCRIPTS) >= 12
    assert len(TABLES) >= 8


@pytest.mark.parametrize("name", [s for s in SCRIPTS if s != "support_table"])
def test_help(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        script(name).main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert f"python bench/{name}.py" in shown
    assert "--seconds" in shown


@pytest.mark.parametrize("name", TABLES)
def test_table(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "table"])
    with pytest.raises(SystemExit) as ended:
        script(name).main()
    assert not ended.value.code
    assert capsys.readouterr().out.count("\n|") >= 2


def test_no_bench_uses_the_command_line_or_the_tests() -> None:
    for path in BENCH.glob("*.py"):
        for module in imports(path):
            assert not module.startswith(("lcprune.cli", "tests")), path.name
            assert module.split(".")[0] not in ("oracle", "networks", "conftest"), path.name


def test_no_bench_is_imported_in_a_circle() -> None:
    known = {name: imports(BENCH / f"{name}.py") & MODULES for name in MODULES}
    while known:
        ends = {name for name, needs in known.items() if not needs & known.keys()}
        assert ends, f"a circle among {sorted(known)}"
        known = {name: needs for name, needs in known.items() if name not in ends}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    return found


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    return tmp_path / "counts.jsonl"


def measured(*arguments: str, keys: tuple[str, ...] = ("size",)) -> list[int]:
    """The sizes, of 1 to 3, that a bench measures."""
    bench = runner.Bench("counts", "Counts.", keys)
    bench.parse(arguments)
    done: list[int] = []
    for size in (1, 2, 3):

        def measure(size: int = size) -> dict[str, int]:
            done.append(size)
            return {"found": 10 * size}

        bench.row({"size": size}, measure)
    return done


def test_what_has_a_row_is_not_measured_again(results: Path) -> None:
    assert measured() == [1, 2, 3]
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [(row["size"], row["found"]) for row in rows] == [(1, 10), (2, 20), (3, 30)]
    assert all(row[key] for row in rows for key in ("commit", "machine", "torch"))
    results.write_text("".join(json.dumps(row) + "\n" for row in rows if row["size"] != 2))
    assert measured() == [2]
    assert measured() == []
    assert measured("--again") == [1, 2, 3]


def test_another_machine_is_measured_again(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ("size", "machine")
    assert measured(keys=keys) == [1, 2, 3]
    assert measured(keys=keys) == []
    monkeypatch.setattr(runner, "machine", lambda: "another")
    assert measured(keys=keys) == [1, 2, 3]


def test_without_keys_every_call_is_a_row(results: Path) -> None:
    assert measured(keys=()) == measured(keys=()) == [1, 2, 3]
    assert len(list(runner.rows("counts"))) == 6


def test_rows_are_only_printed_where_they_are_not_wanted(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measured("--no-row") == [1, 2, 3]
    assert not results.exists()
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == {"size": 1, "found": 10}


def test_it_stops_between_two_rows(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 4.0, 7.0])
    monkeypatch.setattr("runner.time.monotonic", lambda: next(clock))
    with pytest.raises(SystemExit) as ended:
        measured("--seconds", "5")
    assert not ended.value.code
    assert [row["size"] for row in runner.rows("counts")] == [1, 2]
    monkeypatch.undo()


def test_a_table_has_arguments_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def table(options: argparse.Namespace) -> None:
        print(runner.markdown(["budget"], [[options.budget]]))

    bench = runner.Bench("counts", "Counts.", ("size",), table)
    bench.tables.add_argument("--budget", type=float)
    bench.argument("--data", required=True)
    with pytest.raises(SystemExit) as ended:
        bench.parse(["table", "--budget", "0.5"])
    assert not ended.value.code
    assert capsys.readouterr().out == "| budget |\n| --- |\n| 0.5 |\n"
