"""Processes that are started quietly, and what travels to them."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from importlib.machinery import ModuleSpec
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lcprune._factory import call_factory
from lcprune._processes import ENDING, packed, uninterrupted, without_main
from lcprune.errors import ModelError


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks here")
def test_an_interrupt_that_comes_late_leaves_signals_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it may where another thread is slow to take it: as soon as its handler is back."""
    set_handler = signal.signal
    original = signal.getsignal(signal.SIGINT)

    def and_interrupt(number: int, handler: Any) -> Any:
        before = set_handler(number, handler)
        if handler is original:
            raise KeyboardInterrupt
        return before

    def state() -> list[Any]:
        return [signal.pthread_sigmask(signal.SIG_BLOCK, []), *map(signal.getsignal, ENDING)]

    told: list[int] = []
    terminates = set_handler(signal.SIGTERM, lambda number, _: told.append(number))
    as_before = state()
    try:
        monkeypatch.setattr(signal, "signal", and_interrupt)
        within = uninterrupted()
        within.__enter__()
        signal.raise_signal(signal.SIGTERM)
        assert told == []
        with pytest.raises(KeyboardInterrupt):
            within.__exit__(None, None, None)
        assert (state(), told) == (as_before, [signal.SIGTERM])
    finally:
        set_handler(signal.SIGTERM, terminates)
        signal.pthread_sigmask(signal.SIG_SETMASK, as_before[0])


@pytest.mark.parametrize("spec", [None, ModuleSpec("script", None)], ids=["script", "-m"])
def test_the_main_module_is_not_imported_again(
    monkeypatch: pytest.MonkeyPatch, spec: ModuleSpec | None
) -> None:
    main = ModuleType("__main__")
    main.__spec__, main.__file__ = spec, "/somewhere/script.py"
    monkeypatch.setitem(sys.modules, "__main__", main)

    def imported() -> set[str]:
        return {name for name in get_preparation_data("") if name.startswith("init_main")}

    assert len(imported()) == 1
    with without_main():
        assert imported() == set()
    assert len(imported()) == 1
    assert (main.__spec__, main.__file__) == (spec, "/somewhere/script.py")


def test_what_a_named_file_holds_travels_by_value(tmp_path: Path) -> None:
    """To a process that does not know the file."""
    (tmp_path / "mine.py").write_text(
        "class Mine:\n    def answer(self):\n        return helper()\n\n"
        "def helper():\n    return 42\n\ndef make():\n    return Mine()\n"
    )
    content = packed(call_factory(f"{tmp_path / 'mine.py'}:make", ModelError))
    with pytest.raises(ModuleNotFoundError):
        _elsewhere(pickle.dumps(call_factory(f"{tmp_path / 'mine.py'}:make", ModelError)))
    assert _elsewhere(content) == "42"


def _elsewhere(content: bytes) -> str:
    script = "import pickle, sys; print(pickle.load(sys.stdin.buffer).answer())"
    done = subprocess.run([sys.executable, "-c", script], input=content, capture_output=True)
    if b"ModuleNotFoundError" in done.stderr:
        raise ModuleNotFoundError
    return done.stdout.decode().strip()
