"""The order of the suite and what happens when its time is up, in one process and in two."""

from __future__ import annotations

from pathlib import Path

import pytest

SUITE = """
import pytest

@pytest.mark.thorough
@pytest.mark.xdist_group("port")
def test_a(): pass

@pytest.mark.thorough
def test_b(): pass

@pytest.mark.xdist_group("port")
def test_c(): pass

@pytest.mark.thorough
def test_d(): pass

def test_e(): assert {passes}
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with five tests, three of them thorough."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini("[pytest]\nmarkers =\n    thorough\n    xdist_group\n")
    pytester.makepyfile(SUITE.format(passes=True))
    return pytester


def alone(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """A run in this process."""
    return suite.runpytest_inprocess("-rA", "-p", "order", *arguments)


def two(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """A run with two workers."""
    plugins = ["-p", "order", "-p", "xdist"]
    workers = ["-n2", "--dist=loadgroup", "--no-loadscope-reorder"]
    return suite.runpytest_subprocess("-rA", *plugins, *workers, *arguments)


def passed(result: pytest.RunResult) -> list[str]:
    """The names of the tests that passed, in their order."""
    lines = [line for line in result.outlines if line.startswith("PASSED ")]
    return [line.partition("::test_")[2] for line in lines]


@pytest.mark.parametrize(
    ("rotate", "order"), [([], "ceabd"), (["--rotate=4"], "cebda"), (["--rotate=ff"], "ceabd")]
)
def test_default_tests_come_first_and_the_others_rotated(
    suite: pytest.Pytester, rotate: list[str], order: str
) -> None:
    assert "".join(passed(alone(suite, *rotate))) == order


def test_time_that_is_not_up_deselects_nothing_and_groups_of_thorough_tests_stand_alone(
    suite: pytest.Pytester,
) -> None:
    result = two(suite, "--begin-within=600")
    result.assert_outcomes(passed=5, deselected=0)
    assert sorted(passed(result)) == ["a@port_thorough", "b", "c@port", "d", "e"]


def test_when_time_is_up_thorough_tests_are_deselected(suite: pytest.Pytester) -> None:
    result = alone(suite, "--begin-within=0")
    assert passed(result) == ["c", "e"]
    assert result.ret == 0
    assert result.outlines[-1].strip("= ").startswith("2 passed, 3 deselected in")


def test_workers_count_together_and_a_failure_counts_when_time_is_up(
    suite: pytest.Pytester,
) -> None:
    suite.makepyfile(SUITE.format(passes=False))
    result = two(suite, "--begin-within=0")
    assert passed(result) == ["c@port"]
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "3 thorough tests were not begun" in result.stdout.str()
    assert result.outlines[-1].strip("= ").startswith("1 failed, 1 passed, 3 deselected in")
