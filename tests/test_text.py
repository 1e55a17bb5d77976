"""Foreign text in a line of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprune._text import one_line, printable, shown


@given(st.text(st.characters()))
def test_nothing_is_left_for_a_terminal_to_obey(text: str) -> None:
    assert printable(text).isprintable()
    assert one_line(text).isprintable()
    assert shown(text).isprintable()


@given(st.text())
def test_what_can_be_shown_stays(text: str) -> None:
    if text.isprintable():
        assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\r\x08", r"a\nb\r\x08"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2028", r"\u2028"),
        ("\udc80", r"\udc80"),
        ("netz-größe.py", "netz-größe.py"),
    ],
)
def test_what_a_terminal_obeys_is_made_visible(text: str, visible: str) -> None:
    assert printable(text) == visible


def test_a_message_is_one_line_and_short() -> None:
    assert one_line(ValueError("a\n\n  b\tc")) == "a b c"
    assert len(one_line("x" * 1000)) == 300

    class BadError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert one_line(BadError()) == "BadError"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(10**5000, id="digits"),
        "x" * 10**6,
        list(range(10**5)),
        b"x" * 10**6,
        {1: "x" * 10**6},
        object(),
    ],
)
def test_a_value_is_shown_short(value: object) -> None:
    assert len(shown(value)) < 100
    assert shown(value).isprintable()
