"""Values that nobody expects: as texts, as JSON, as Python objects."""

# ruff: noqa: E501 (lists of values are read across)

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

DIGITS = "9" * 400

NUMBERS = (
    "0", "-0", "-1", "1", "2", "3.7", "1e3", "1e300", "-1e300", "1e400", "1e-320", "nan", "inf",
    "-inf", "NaN", "+5", " 5", "5 ", "0x10", "1_000", "1,5", "٣", "½", "1e", "--1", "0.0000001",
    "2147483648", "4294967296", "9223372036854775807", "9223372036854775808", "-9223372036854775809",
    "18446744073709551616", DIGITS, f"-{DIGITS}", f"0.{DIGITS}", "1" * 5000,
)  # fmt: skip
"""Texts where a number is expected, or that look like one."""

NAMES = (
    "", " ", "-", "--", "---", "=", ":", "::", "@", "x", "none", "None", "null", "true", "auto",
    "cpu", "cuda", "cuda:99", "hpu", "meta", "mps", "xla", "privateuseone", "cpu:7", "gpu",
    "[/b]", "[bold]x[/bold]", "[red", "[link=http://x]y", "]", "{0}", "{}", "%s", "%n", "$HOME",
    "`id`", "$(id)", ";ls", "|", "&", "\\", "'", '"', "\x1b[31mred", "\x1b]0;title\x07", "\x9b31m",
    "a\nb", "a\rb", "a\tb", "\x07", "\u202egnp.exe", "\u2066x", "\ufeffx", "\u2028", "ü", "日本語",
    "🙂", "é́́́", "\udce9", "x\udcff.png", "a" * 300, "a/" * 2000 + "x",
    "é" * 200, "../" * 60 + "etc/passwd", "/", ".", "..", "~", "~nosuchuser/x",
    "/dev/null/x", "/dev/zero", "/dev/full", "/proc/self/mem", "con", "file:///etc/passwd",
    "http://localhost:1/x", "a:b", "a.b:c", "os:system", "builtins:exit", "sys:exit",
    "this:x", "x.py:y", "x.py:", ":x", "a:b:c", "*", "[!", "[a-", "?",
    "**", "(", "torch:nn", "json:dumps", "lcprune:trace", "__main__:main", "a..b:c", ".a:b",
)  # fmt: skip
"""Texts where a name or a path is expected."""

BUDGETS = (
    "macs", "macs=", "=50%", "macs=50", "macs=50%%", "macs=-5%", "macs=0", "macs=0%", "macs=100%",
    "macs=101%", "macs=1e300", "macs=1e-300", "macs=nan", "macs=inf", "macs=nan%", "macs=inf%",
    "macs=1e400%", f"macs={DIGITS}", f"macs={DIGITS}%", "macs=50%,params=50%", "macs==50%",
    "macs=50%=3", "MACS=50%", "macs=1", "macs=1k", "macs=1KB", "macs=0.5", "macs=0.5%", "macs=1G",
    "macs=5 %", "macs= 50%", " macs=50%", "flops=50%", "weights=1KiB", "weights=1kib", "weights=1",
    "weights=1e9GB", "weights=-1B", "weights=nanB", "weights=infMB", "weights=1e300MiB",
    "activations=1B", "activations=1e300kB", "params=1.5", "params=1e18", "latency=5ms",
    "latency=0", "latency=-1us", "latency=50%", "energy=1mJ", "energy=nanuJ", "macs=٥٠%",
    "macs=1_000", "macs=0x10", "macs=true", "\x1b[31mmacs=50%", "[/b]=50%", "macs=[/b]", "macs=\n1",
    "activations=1e-9B", "weights=9e99999B", "macs=50%\x00"[:-1], "mäcs=50%", "params=1%", "macs=1%",
)  # fmt: skip
"""Bounds that mean nothing, or too much."""

SHAPES = (
    "", "x", "1", "1x3", "1x3x32", "1x3x32x32x32", "0x3x32x32", "1x0x32x32", "-1x3x32x32",
    "1x3x0x0", "1x3x1x1", "1x3x3x3", "1x1x32x32", "1x4x32x32", "2x3x32x32", "1X3X32X32", "1×3×32×32",
    "1x3x32x", "x1x3x32", "1x3x32x32.5", "1x3x1e3x32", "1,3,32,32", "[1,3,32,32]", "1x3x٣x32",
    f"1x3x{DIGITS}x32", "1x3x100000x100000", "1x3x9223372036854775808x1", "1x3x2147483648x1",
    "99999999999x3x32x32", "1x3x32x32\n", "1x3x32x32\x1b[0m", "nanx3x3x3", " 1x3x32x32 ",
)  # fmt: skip

DEEP = 5000


def deep_list(levels: int = DEEP) -> str:
    """JSON and TOML text of lists in lists."""
    return "[" * levels + "]" * levels


JSON_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, 1e300, 1e-320,
    float("nan"), float("inf"), -float("inf"), "", " ", "x", "0", "1", "nan", "a\nb", "\x1b[31mred",
    "\x00", "\u202egnp", "[/b]", "\ud800", "x" * 10_000, "../x", "/etc/passwd", [], [[]], {}, {"x": 1},
    [None], [1, "x"], ["x"], [-1], [1.5], [10**30], [[1, 2], [3]], {"": None}, [True], "{}", "[]",
)  # fmt: skip
"""Values for any place of a JSON file; NaN and infinity are written as Python writes them."""

DEEP_JSON = "\x00deep"
"""Stands for a list of lists by the thousand, which ``json`` can't make."""


def bytes_of(chance: random.Random, content: bytes) -> tuple[str, bytes]:
    """A damaged copy of a file's bytes, and how it was damaged."""
    size = len(content)
    kind = chance.choice(
        ("empty", "one byte", "cut", "last byte cut", "flipped", "spliced", "zeros", "random",
         "longer", "doubled", "text", "line ends")
    )  # fmt: skip
    at = chance.randrange(max(1, size))
    if kind == "empty":
        return kind, b""
    if kind == "one byte":
        return kind, bytes([chance.randrange(256)])
    if kind == "cut":
        return f"cut at {at} of {size}", content[:at]
    if kind == "last byte cut":
        return kind, content[:-1]
    if kind == "flipped":
        changed, count = bytearray(content), chance.choice((1, 1, 3, 20))
        for _ in range(count if size else 0):
            changed[chance.randrange(size)] ^= 1 << chance.randrange(8)
        return f"{count} bits flipped", bytes(changed)
    if kind == "spliced":
        length = chance.choice((1, 4, 64))
        return f"{length} bytes random at {at}", (
            content[:at] + chance.randbytes(length) + content[at + length :]
        )
    if kind == "zeros":
        return f"zeros from {at}", content[:at] + bytes(size - at)
    if kind == "random":
        return kind, chance.randbytes(chance.choice((3, 100, 5000)))
    if kind == "longer":
        return kind, content + chance.randbytes(chance.choice((1, 1000)))
    if kind == "doubled":
        return kind, content * 2
    if kind == "text":
        return kind, b"this is no such file\n"
    return kind, content.replace(b"\n", b"\r\n")


def replace_by(chance: random.Random, path: Path, precious: Path) -> str:
    """Put something that is no file, or not this one, in the place of ``path``."""
    import os

    kind = chance.choice(
        ("removed", "directory", "full directory", "pipe", "link to a file outside", "dangling link",
         "loop", "link to a folder", "/dev/zero", "/dev/null", "socket", "huge", "hard link",
         "link to itself by another name")
    )  # fmt: skip
    content = path.read_bytes() if path.is_file() else b""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        return "left as it is"
    if kind == "directory":
        path.mkdir()
    elif kind == "full directory":
        path.mkdir()
        (path / "x").write_text("x")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a file outside":
        path.symlink_to(precious)
    elif kind == "dangling link":
        path.symlink_to(precious.with_name("new.txt"))
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "link to a folder":
        path.symlink_to(precious.parent)
    elif kind in ("/dev/zero", "/dev/null"):
        path.symlink_to(kind)
    elif kind == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as held:
            here = Path.cwd()
            os.chdir(path.parent)  # such a path is short
            try:
                held.bind(path.name)
            finally:
                os.chdir(here)
    elif kind == "huge":
        with path.open("wb") as file:
            file.write(content)
            file.truncate(2**36)
    elif kind == "hard link":
        os.link(precious, path)
    elif kind == "link to itself by another name":
        path.with_name(f"moved-{path.name}").write_bytes(content)
        path.symlink_to(path.with_name(f"moved-{path.name}"))
    return kind
