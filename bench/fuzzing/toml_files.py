"""Files for ``--config``: wrong types, wrong text, and no files at all."""

# ruff: noqa: E501 (lists of values are read across)

from __future__ import annotations

import os
import random
from pathlib import Path

from fuzzing.command_lines import BUDGETS, LONG, NAMES, TINY, options_of, short
from fuzzing.hostile import DIGITS, NUMBERS, bytes_of, deep_list
from fuzzing.tries import Ground, Try

BASE = {
    "prune": {
        "model": '"tiny.py:net"', "data": '"tiny.py:data"', "weights": '"random"',
        "budget": '"macs=50%"', "trials": "2", "recalibrate_images": "8", "fitness_images": "8",
        "search_dtype": '"float32"', "train_dtype": '"float32"', "batch_size": "16",
        "finetune_epochs": "1", "device": '"cpu"',
    },
    "train": {
        "model": '"tiny.py:net"', "data": '"tiny.py:data"', "weights": '"random"', "epochs": "1",
        "train_dtype": '"float32"', "batch_size": "16", "device": '"cpu"',
    },
}  # fmt: skip

VALUES = (
    "", "x", "true", "false", "nan", "-nan", "inf", "-inf", "+inf", "1e400", "-1e400", "1e300",
    "1e-320", "0", "-0", "-1", "0x7fffffffffffffff", "0xffffffffffffffffff", "0o777", "0b1",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", DIGITS, f"-{DIGITS}",
    "1" * 4301, f"{DIGITS}.5", "0." + "0" * 400 + "1", "1_0", "1__0", "01", "1.", ".5", "1979-05-27",
    "07:32:00", "1979-05-27T07:32:00Z", "9999-12-31T23:59:60Z", "0000-00-00", "[]", "[[]]", "[1, 'a']",
    "['macs=50%']", "['macs=50%', 1]", "[true]", "[nan]", "{}", "{ a = 1 }", "{ macs = 0.5 }",
    "{ macs = '50%' }", "{ macs = nan }", "{ macs = [1] }", "{ macs = {} }", "{ '' = 1 }",
    "{ macs = 9999999999999999999999 }", "{ a.b.c = 1 }", '""', '" "', '"\\u0000"', '"a\\u0000b"',
    '"\\u001b[31mred"', '"\\u202egnp"', '"[/b]"', '"\\n"', '"""a\nb"""', "'''\n'''", '"\\ud800"',
    '"\\x41"', '"auto"', '"float16"', '"50%"', '"nan"', '"~nosuchuser/x"', "'/dev/zero'", "[[[[1]]]]",
    '"' + "x" * 100_000 + '"', deep_list(), deep_list(200), "{a=" * 5000 + "1" + "}" * 5000, "[" * 5000,
    "[" + "1," * 100_000 + "]", '"unclosed', "'", "1 2", "= 1", "# only", "{ a = 1, a = 2 }", "\t1",
    '"\\U0010ffff"', '"\\U00110000"', "1\x0b", "é", "true\r", "{ macs = inf }", "['']", "[' ']",
    "[['macs=50%']]", "{ 'macs=50%' = 1 }", "{ macs = 1979-05-27 }", "'\x1b[31m'", "-nan",
)  # fmt: skip
"""Text to the right of the sign of equality."""

KEYS = (
    "x", "Trials", "trial", '""', '"\\u001b[31mred"', '"[/b]"', '"a b"', "out", "resume", "force",
    "config", "remeasure", "seed.x", "model.x", "a.b.c.d", "__class__", "__init__", "self", "title",
    ".".join(["a"] * 5000), '"' + "k" * 100_000 + '"', "1", "-", "é", '"\\u0000"', "budget.macs",
    "finetune-epochs", "FINETUNE_EPOCHS", "of", "as_json", "command", "'\\u202e'", "batch-size",
)  # fmt: skip

DOCUMENTS: tuple[bytes, ...] = (
    b"", b"\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xff\xfea\x00", b"\x00", b"\x80", b"\r", b"=", b"[",
    b"]", b"[]", b"[[]]", b"[a", b"[[a]]\n[a]", b"[a]\n[a]", b"a", b"a.b = 1\na = 2", b"\x1b[31m = 1",
    b"[/b]", b"[/b]\nx = 1", b"\x1a\x45\xdf\xa3", b"PK\x03\x04", b"{}", b'{"model": "x"}', b"model: x",
    b"[" * 5000, b"[" + b"a." * 5000 + b"a]", b"a = [" * 5000, b"[[x]]\n" * 20_000, b"#" * 10**7,
    b"x = '''" + b"y" * 10**7 + b"'''", b"[model]\nx = 1", b"[[trials]]", b"[budget]\nmacs = 0.5",
    b"[budget]\nmacs = nan", b"[budget]\nmacs = '50%'\nx = 1", b"[tool.lcprune]\nmodel = 'x'",
    b"a = 1\nA = 1\n\xe9 = 2", "é = 1".encode("latin-1"), "model = 'x'".encode("utf-16"), b"a\x0b= 1",
    b"\xed\xa0\x80 = 1", b"model = 'x'\x00", b"\xc2\x85 = 1", b"x = " + b"1" * 5000,
)  # fmt: skip


class TomlFiles:
    """The surface."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self._ground = ground
        self._keys = {
            command: [
                o.removeprefix("--") for o in options_of(command) if not o.startswith("--no-")
            ]
            for command in BASE
        }
        self._pairs = [(c, k) for c, keys in self._keys.items() for k in [*keys, "model", "budget"]]
        random.Random(seed).shuffle(self._pairs)

    def make(self, number: int, chance: random.Random, folder: Path) -> Try:
        """The try of this number."""
        (folder / "tiny.py").write_text(TINY)
        config = folder / "run.toml"
        command = chance.choice(list(BASE))
        text = document(BASE[command])
        kind = number % 10
        key = ""
        if kind < 6:
            command, key = self._pairs[number % len(self._pairs)]
            value = self._value(key, chance)
            written = chance.choice((key, key.replace("-", "_")))
            content = document({**BASE[command], written: value}).encode("utf-8", "surrogatepass")
            what = f"{written} = {short(value)}"
        elif kind == 6:
            key, value = chance.choice(KEYS), chance.choice(("1", "'x'", *VALUES))
            content = chance.choice(
                (f"{key} = {value}\n{text}", f"{text}{key} = {value}\n")
            ).encode()
            what = f"{short(key)} = {short(value)}"
        elif kind == 7:
            content = chance.choice(DOCUMENTS)
            if chance.random() < 0.5:
                content = chance.choice((content + b"\n" + text.encode(), text.encode() + content))
            what = short(repr(content[:60]))
        elif kind == 8:
            what, content = bytes_of(chance, text.encode())
        else:
            return self._no_file(command, text, config, chance)
        config.write_bytes(content)
        return self._try(command, what, chance, long=f"--{key}".replace("_", "-") in LONG)

    def _value(self, key: str, chance: random.Random) -> str:
        """Text of a value; some hundred thousand characters are rare."""
        if key == "budget" and chance.random() < 0.5:
            quoted = chance.choice(BUDGETS).replace("\\", "").replace('"', "")
            return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in quoted) + '"'
        if chance.random() < 0.15:
            return chance.choice(NUMBERS)
        if chance.random() < 0.15:
            name = chance.choice(NAMES).encode("utf-8", "replace").decode()
            return (
                '"'
                + "".join(
                    c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in name
                )
                + '"'
            )
        if key in ("processes", "workers"):
            return chance.choice([v for v in VALUES if not v[:1].isdigit()])
        return chance.choice(VALUES)

    def _no_file(self, command: str, text: str, config: Path, chance: random.Random) -> Try:
        """What is no ordinary file."""
        what = chance.choice(
            ("a directory", "a pipe", "missing", "a loop", "/dev/zero", "/dev/null", "a link", "/",
             "a huge file", "/dev/fd/0", "/proc/self/mem", "a name of 300", "twice", "an empty name",
             "/dev/stdin", "/dev/full", "a socket", "a folder in a file", "itself as --out")
        )  # fmt: skip
        name = "run.toml"
        if what == "a directory":
            config.mkdir()
        elif what == "a pipe":
            os.mkfifo(config)
        elif what == "a loop":
            config.symlink_to("run.toml")
        elif what == "a link":
            config.symlink_to(self._ground.precious)
        elif what == "a huge file":
            with config.open("wb") as file:
                file.truncate(2**36)
        elif what.startswith("/"):
            name = what
        elif what == "a name of 300":
            name = "x" * 300
        elif what == "an empty name":
            name = ""
        elif what == "a folder in a file":
            config.write_text(text)
            name = "run.toml/x"
        elif what in ("twice", "itself as --out"):
            config.write_text(text)
        further = ["--config", name] if what == "twice" else []
        out = name if what == "itself as --out" else "run"
        return Try(
            f"{command} --config {what}", (command, "--config", name, *further, "--out", out)
        )

    def _try(self, command: str, what: str, chance: random.Random, long: bool) -> Try:
        arguments = [command, "--config", "run.toml", "--out", "run"]
        if chance.random() < 0.2:
            arguments += chance.choice((["--seed", "1"], ["--batch-size", "8"], ["--resume"]))
        return Try(
            f"{command}, {what}",
            tuple(arguments),
            interrupt=6.0 if long or "demo" in what else None,
        )


def document(values: dict[str, str]) -> str:
    """TOML text of keys and values as they are written."""
    return "".join(f"{key} = {value}\n" for key, value in values.items())
