"""Text that is not ours, as a line that can be shown."""

from __future__ import annotations

_LONGEST = 80


def printable(text: str) -> str:
    """``text`` with everything that a terminal would obey or hide written as an escape.

    Control characters, line breaks, the marks that turn the direction of writing, other
    characters without a shape and lone surrogates become ``\\x1b``, ``\\n``, ``\\u202e`` and the
    like.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def one_line(message: object, limit: int = 300) -> str:
    """A message, such as an exception's, without line breaks, cut to ``limit`` characters."""
    try:
        text = str(message)
    except Exception:  # an exception of somebody else's, whose own text fails
        text = type(message).__name__
    return shortened(printable(" ".join(text.split())), limit)


def described(error: BaseException, limit: int = 300) -> str:
    """The type of an error and its text, in one line."""
    text = one_line(error, limit)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def first_line(error: BaseException, limit: int = 300) -> str:
    """The type of an error and the first line of its text."""
    text = one_line(str(error).strip().partition("\n")[0], limit)
    return shortened(f"{type(error).__name__}: {text}" if text else type(error).__name__, limit)


def shortened(text: str, limit: int) -> str:
    """``text``, cut to ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shown(value: object) -> str:
    """A value in an error message: short, in one line; of anything large only what it is."""
    kind = type(value)
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    if value is None or kind in (bool, int, float, complex):
        return repr(value)
    if isinstance(value, str):
        return printable(repr(shortened(value, _LONGEST)))
    if kind in (list, tuple, dict, set, frozenset) and isinstance(value, list | tuple | dict):
        return f"a {kind.__name__} of {len(value)}"
    if isinstance(value, type):
        return printable(f"the class {value.__name__}")
    name = printable(kind.__name__)
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"
