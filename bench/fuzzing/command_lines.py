"""Command lines: every option of every command with values that nobody expects."""

# ruff: noqa: E501 (lists of values are read across)

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import runpy
import shutil
import signal
import sys
from pathlib import Path

from fuzzing.hostile import BUDGETS, NAMES, NUMBERS, SHAPES
from fuzzing.tries import Ground, Try

TINY = """
import torch
from torch import nn
from lcprune.data import Data, Images

def net(classes=2):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )

def data():
    g = torch.Generator().manual_seed(0)
    def images(n):
        pixels = torch.randint(0, 256, (n, 3, 8, 8), generator=g, dtype=torch.uint8)
        return Images(pixels, torch.arange(n) % 2)
    return Data(train=images(64), test=images(16), classes=("a", "b"), mean=(0.5,) * 3,
                std=(0.5,) * 3, input_shape=(3, 8, 8), name="tiny")

def fails(*a, **k):
    raise ValueError("\\x1b[31mred\\nline two [/b]")

def exits(*a, **k):
    raise SystemExit(7)

def interrupts(*a, **k):
    raise KeyboardInterrupt

def recursion(*a, **k):
    return recursion()

def memory(*a, **k):
    return bytearray(1 << 50)

def none(*a, **k):
    return None

def text(*a, **k):
    return "x"

def no_convolutions(*a, **k):
    return nn.Sequential(nn.Flatten(), nn.ReLU())

def empty_net(*a, **k):
    return nn.Sequential()

class Odd(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        if self.kind == "raises":
            raise KeyError("\\x1b[31mwhy\\nsecond")
        if self.kind == "exits":
            raise SystemExit(9)
        if self.kind == "none":
            return None
        if self.kind == "text":
            return "x"
        if self.kind == "nan":
            return y.mean((2, 3)) * float("nan")
        if self.kind == "dict":
            return {"\\x1b[31ma": y.mean((2, 3))}
        if self.kind == "empty":
            return []
        if self.kind == "map":
            return y
        return y.mean((2, 3))[:, :2]

def raises(): return Odd("raises")
def net_exits(): return Odd("exits")
def net_none(): return Odd("none")
def net_text(): return Odd("text")
def net_nan(): return Odd("nan")
def net_dict(): return Odd("dict")
def net_empty(): return Odd("empty")
def net_map(): return Odd("map")
def net_slice(): return Odd("slice")

def odd(**changes):
    g = torch.Generator().manual_seed(0)
    images = Images(torch.randint(0, 256, (64, 3, 8, 8), generator=g, dtype=torch.uint8), torch.arange(64) % 2)
    usual = dict(train=images, test=images, classes=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3,
                 input_shape=(3, 8, 8), name="tiny")
    return Data(**{**usual, **changes})

def some(count, labels=2, shape=(3, 8, 8)):
    return Images(torch.zeros(count, *shape, dtype=torch.uint8), torch.arange(count) % labels)

def data_std_zero(): return odd(std=(0.0,) * 3)
def data_std_nan(): return odd(std=(float("nan"),) * 3)
def data_mean_short(): return odd(mean=(0.5,))
def data_mean_text(): return odd(mean="abc")
def data_mean_none(): return odd(mean=None)
def data_no_images(): return odd(train=some(0))
def data_no_test(): return odd(test=some(0))
def data_one_image(): return odd(train=some(1))
def data_one_class(): return odd(classes=("a",), train=some(64, 1), test=some(16, 1))
def data_no_classes(): return odd(classes=())
def data_label_99(): return odd(train=Images(some(64).pixels, torch.full((64,), 99)))
def data_label_minus(): return odd(test=Images(some(64).pixels, torch.full((64,), -1)))
def data_other_shape(): return odd(input_shape=(3, 16, 16))
def data_shape_text(): return odd(input_shape="3x8x8")
def data_shape_two(): return odd(input_shape=(8, 8))
def data_test_larger(): return odd(test=some(16, 2, (3, 16, 16)))
def data_test_grey(): return odd(test=some(16, 2, (1, 8, 8)))
def data_train_none(): return odd(train=None)
def data_train_list(): return odd(train=[(1, 2)])
def data_classes_text(): return odd(classes="ab")
def data_classes_numbers(): return odd(classes=(1, 2))
def data_name_escapes(): return odd(name="\\x1b[31mred\\n[/b]")
def data_class_escapes(): return odd(classes=("\\x1b[31ma", "[/b]"))
def data_float_pixels(): return odd(train=Images(torch.rand(4, 3, 8, 8), torch.arange(4)))
def data_name_none(): return odd(name=None)
def data_empty_pixels(): return odd(train=some(64, 2, (3, 0, 0)), test=some(16, 2, (3, 0, 0)), input_shape=(3, 0, 0))
"""

FACTORIES = (
    "fails", "exits", "interrupts", "recursion", "memory", "none", "text", "no_convolutions",
    "empty_net", "raises", "net_exits", "net_none", "net_text", "net_nan", "net_dict", "net_empty",
    "net_map", "net_slice", "data", "net", "nn", "torch", "nosuch", "Odd", "__doc__",
)  # fmt: skip

ODD_DATA = tuple(re.findall(r"def (data_\w+)\(", TINY))
"""Factories of data sets that are wrong in one way."""

BASES: dict[str, dict[str, str]] = {
    "prune": {
        "": "tiny.py:net", "--data": "tiny.py:data", "--weights": "random", "--budget": "macs=50%",
        "--out": "run", "--trials": "2", "--recalibrate-images": "8", "--fitness-images": "8",
        "--search-dtype": "float32", "--train-dtype": "float32", "--batch-size": "16",
        "--finetune-epochs": "1", "--device": "cpu",
    },
    "train": {
        "": "tiny.py:net", "--data": "tiny.py:data", "--weights": "random", "--out": "run",
        "--epochs": "1", "--train-dtype": "float32", "--batch-size": "16", "--device": "cpu",
    },
    "inspect": {"": "tiny.py:net", "--input": "1x3x8x8"},
    "evaluate": {"": "saved", "--data": "digits"},
    "demo": {"--out": "run"},
}  # fmt: skip

MODELS = (
    "cifar_resnet20", "cifar_resnet21", "digits_resnet", "torchvision/", "torchvision/x", "timm/",
    "timm/x", "timm/resnet18.nosuch", "torchvision/resnet18/", "resnet18", "torchvision/../x",
    "torchvision/__doc__", "timm/hf-hub:x/y", "timm/hf_hub:../x", "torchvision/vgg11_bn_x",
    "torchvision/raft_small", "torchvision/fasterrcnn_mobilenet_v3_large_fpn",
    "torchvision/lraspp_mobilenet_v3_large", "torchvision/keypointrcnn_resnet50_fpn", "tiny.py:net:x",
    "cifar_resnet\x1b[31m", "torchvision/[/b]", "timm/\u202e", "/etc/passwd:x", "folder.py:net",
    "pipe.py:net", "binary.py:net", "syntax.py:net", "empty.py:net", "deep.py:net", "loop.py:net",
)  # fmt: skip
DATA = (
    "digits:", "digits:x", "cifar10", "cifar10:", "cifar10:nosuch", "cifar10:.", "cifar100:.",
    "imagenet:.", "cub200:.", "imagefolder:.", "imagefolder:.@", "imagefolder:.@0", "imagefolder:@8",
    "imagefolder:nosuch@32", "imagefolder:.@99999999999999999999", f"imagefolder:.@{'9' * 400}",
    "imagefolder:~nosuchuser/x", "cifar10:/dev/null", "imagefolder:tiny.py", "cifar10:.@32",
    "imagefolder:\x1b[31m", "imagefolder:" + "a" * 300, "imagefolder:[/b]", "digits@8", "cifar11:x",
    "imagefolder:loop.py", "cub200:tiny.py", "imagenet:pipe.py", "cifar10:\udce9", "imagefolder:\n",
)  # fmt: skip
LONG = {
    "--trials", "--epochs", "--finetune-epochs", "--base-epochs", "--finalist-steps", "--finalists",
    "--recalibrate-images", "--fitness-images",
}  # fmt: skip
"""Options whose large values are right, and take long."""
RISKY = {"--processes", "--workers", "--executor", "--ray-address"}
"""Options that start processes: only values that can't be right are tried."""
NOT_STARTING = [n for n in NUMBERS if not n.strip().lstrip("+").replace("_", "").isdigit()]
ENVIRONMENT: tuple[dict[str, str | None], ...] = (
    {"WORLD_SIZE": "abc"}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "0"}, {"WORLD_SIZE": "-1"},
    {"WORLD_SIZE": "2"}, {"WORLD_SIZE": "9" * 400}, {"RANK": "x"}, {"WORLD_SIZE": "1", "RANK": "7"},
    {"WORLD_SIZE": "2", "RANK": "-1"}, {"LOCAL_RANK": "x"}, {"LCPRUNE_CACHE": ""},
    {"LCPRUNE_CACHE": "/dev/null"}, {"LCPRUNE_CACHE": "/dev/null/x"}, {"LCPRUNE_CACHE": "~nosuch/x"},
    {"LCPRUNE_CACHE": "a" * 5000}, {"LCPRUNE_CACHE": "tiny.py"}, {"LCPRUNE_CACHE": "/proc/x"},
    {"LANG": "C", "LC_ALL": "C"}, {"TERM": "dumb"}, {"TERM": ""}, {"COLUMNS": "0"}, {"COLUMNS": "1"},
    {"COLUMNS": "-5"}, {"COLUMNS": "x"}, {"COLUMNS": "9" * 400}, {"LINES": "x"}, {"HOME": ""},
    {"HOME": None}, {"HOME": "/nonexistent"}, {"TMPDIR": "/nonexistent"}, {"PATH": ""},
    {"XDG_CACHE_HOME": "/dev/null"}, {"XDG_CACHE_HOME": ""}, {"NO_COLOR": "1"},
    {"CUDA_VISIBLE_DEVICES": "x"}, {"OMP_NUM_THREADS": "x"}, {"MASTER_ADDR": "x"},
    {"TORCH_HOME": "/dev/null"}, {"PWD": "/nonexistent"}, {"LCPRUNE_CACHE": "\x1b[31mx"},
)  # fmt: skip
STREAMS = tuple(
    {"stdout": out, "stderr": err}
    for out in ("file", "closed", "full", "broken")
    for err in ("file", "closed", "full", "broken")
    if (out, err) != ("file", "file")
)


class CommandLines:
    """The surface; its options are those that ``--help`` names."""

    def __init__(self, ground: Ground, seed: int, saved: Path) -> None:
        self._ground, self._saved = ground, saved
        self.options = {command: options_of(command) for command in BASES}
        self._pairs = [
            (command, option)
            for command, names in self.options.items()
            for option in names
            if option not in ("--help",)
        ]
        random.Random(seed).shuffle(self._pairs)

    def make(self, number: int, chance: random.Random, folder: Path) -> Try:
        """The try of this number."""
        self._lay_out(folder)
        kind = number % 20
        if kind < 12:
            return self._one_option(number, chance)
        if kind < 14:
            return self._careless(chance)
        if kind < 16:
            return self._model_or_data(chance)
        if kind < 18:
            return self._surroundings(number, chance)
        if kind == 18:
            return self._several(chance)
        return self._real(number, chance)

    def _lay_out(self, folder: Path) -> None:
        (folder / "tiny.py").write_text(TINY)
        shutil.copytree(self._saved, folder / "saved")
        (folder / "folder.py").mkdir()
        os.mkfifo(folder / "pipe.py")
        (folder / "binary.py").write_bytes(b"\x00\xff\xfe\x80")
        (folder / "syntax.py").write_text("def net(:\n")
        (folder / "empty.py").write_text("")
        (folder / "deep.py").write_text("x = " + "(" * 300 + ")" * 300)
        (folder / "loop.py").symlink_to("loop.py")

    def _one_option(self, number: int, chance: random.Random) -> Try:
        command, option = self._pairs[number % len(self._pairs)]
        value = value_for(option, chance)
        return self._with(command, option, value, chance)

    def _with(self, command: str, option: str, value: str | None, chance: random.Random) -> Try:
        base = dict(BASES[command])
        base.pop(option, None)
        arguments = arguments_of(command, base)
        written = [option] if value is None else [option, value]
        if value is not None and chance.random() < 0.3:
            written = [f"{option}={value}"]
        at = chance.choice((1, len(arguments)))
        arguments[at:at] = written
        interrupt = 6.0 if option in LONG or command == "demo" else None
        shown = " ".join(map(short, written))
        return Try(f"{command} {shown}", tuple(arguments), interrupt=interrupt)

    def _careless(self, chance: random.Random) -> Try:
        """Arguments that are missing, doubled, in a wrong order, of another command."""
        command = chance.choice(list(BASES))
        arguments = arguments_of(command, BASES[command])
        what = chance.choice(
            ("dropped", "doubled", "swapped", "foreign", "unknown", "cut", "joined")
        )
        if what == "dropped":
            del arguments[chance.randrange(len(arguments))]
        elif what == "doubled":
            at = chance.randrange(len(arguments))
            arguments[at:at] = arguments[at : at + 2]
        elif what == "swapped":
            i, j = (chance.randrange(len(arguments)) for _ in range(2))
            arguments[i], arguments[j] = arguments[j], arguments[i]
        elif what == "foreign":
            other, option = chance.choice(self._pairs)
            arguments += [option, chance.choice(NAMES)] if other != command else [option]
        elif what == "unknown":
            text = chance.choice(("--" + chance.choice(NAMES), chance.choice(NAMES), "-x", "-vvv",
                                  "--trial", "--no-out", "--no-seed", "--help=x", "-h", "--version"))  # fmt: skip
            arguments.insert(chance.randrange(len(arguments) + 1), text)
        elif what == "cut":
            arguments = arguments[: chance.randrange(len(arguments))]
        else:
            arguments = [" ".join(arguments)]
        interrupt = 6.0 if command == "demo" else None
        return Try(
            f"{what}: {' '.join(map(short, arguments))}", tuple(arguments), interrupt=interrupt
        )

    def _model_or_data(self, chance: random.Random) -> Try:
        """Networks and data sets that are none."""
        command = chance.choice(("prune", "train", "inspect", "inspect"))
        base = dict(BASES[command])
        if command == "inspect" or chance.random() < 0.5:
            name = chance.choice((*MODELS, *(f"tiny.py:{f}" for f in FACTORIES)))
            base[""] = name
            if chance.random() < 0.5 and command == "inspect":
                del base["--input"]
        else:
            name = chance.choice(
                (*DATA, *(f"tiny.py:{f}" for f in (*FACTORIES, *ODD_DATA, *ODD_DATA)))
            )
            base["--data"] = name
        offline = command == "inspect" and "hub" not in name
        what = f"{command} with {short(name)}"
        return Try(what, tuple(arguments_of(command, base)), offline=offline)

    def _surroundings(self, number: int, chance: random.Random) -> Try:
        """Odd variables of the environment, and streams that can't be written to."""
        command = chance.choice(list(BASES)[:4])
        arguments = arguments_of(command, BASES[command])
        if chance.random() < 0.25:
            arguments = chance.choice((["--help"], [command, "--help"], [], [command]))
        if chance.random() < 0.15:
            what = f"{command}, and the working directory is gone"
            return Try(what, tuple(arguments), nowhere=True)
        if chance.random() < 0.25:
            name = chance.choice(("NOFILE", "FSIZE", "FSIZE", "AS"))
            # Room for what was there before the limit came, such as the streams.
            least = {"NOFILE": 12, "FSIZE": 0, "AS": 2**20}[name]
            most = {"NOFILE": 40, "FSIZE": 20_000, "AS": 2**28}[name]
            limits = {name: chance.randrange(least, most)}
            return Try(f"{command} with at most {limits}", tuple(arguments), limits=limits)
        if chance.random() < 0.5:
            values = ENVIRONMENT[number % len(ENVIRONMENT)]
            return Try(f"{command} with {short(str(values))}", tuple(arguments), environment=values)
        if chance.random() < 0.3:
            arguments = [a if a else short(a) for a in arguments]
            name = chance.choice(("é", "日本語", "🙂", "\udce9"))
            arguments = [a.replace("run", name) for a in arguments]
            return Try(f"{command} --out {name!r} to ASCII", tuple(arguments), encoding="ascii")
        streams = chance.choice(STREAMS)
        stdin = chance.choice(("null", "closed"))
        what = f"{' '.join(arguments[:2])} with {streams}, stdin {stdin}"
        return Try(what, tuple(arguments), stdin=stdin, **streams)

    def _several(self, chance: random.Random) -> Try:
        """Several options at once, so that one is met after another has passed."""
        command = chance.choice(("prune", "train"))
        base = dict(BASES[command])
        for option in chance.sample([o for o in self.options[command] if o not in RISKY], 3):
            if option not in ("--help", "--resume"):
                base[option] = value_for(option, chance) or ""
        arguments = arguments_of(command, base)
        return Try(" ".join(map(short, arguments)), tuple(arguments), interrupt=6.0)

    def _real(self, number: int, chance: random.Random) -> Try:
        """The same in a fresh interpreter; some are interrupted while packages are imported."""
        if number % 40 == 39:
            after = chance.choice((0.02, 0.1, 0.3, 0.6, 1.0, 1.5, 2.0, 2.5, 3.0))
            command = chance.choice(("prune", "train", "inspect", "evaluate", "demo"))
            arguments = tuple(arguments_of(command, BASES[command]))
            number = chance.choice((signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
            what = f"{command}, {number.name} after {after} s"
            return Try(what, arguments, interrupt=after, signal=number, real=True)
        import dataclasses

        choose = chance.choice((self._careless, self._model_or_data))
        one = choose(chance)
        whole = all("\x00" not in argument for argument in one.arguments or ())
        return dataclasses.replace(one, real=whole)


def arguments_of(command: str, options: dict[str, str]) -> list[str]:
    """A command line of options; the one without a name comes first."""
    found = [command]
    for name, value in options.items():
        found += [value] if not name else [name, value]
    return found


def value_for(option: str, chance: random.Random) -> str | None:
    """Something that the option does not expect; none for no value at all."""
    if option in RISKY:
        return chance.choice([*NOT_STARTING, *NAMES[:40]])
    pools: list[tuple[str, ...]] = [NUMBERS, NAMES]
    if "budget" in option or "sweep" in option:
        pools = [BUDGETS, BUDGETS, BUDGETS, NAMES, NUMBERS]
    elif option == "--input":
        pools = [SHAPES, SHAPES, NAMES, NUMBERS]
    elif option == "--data":
        pools = [DATA, NAMES]
    elif option in ("--out", "--config", "--weights"):
        pools = [
            NAMES,
            NAMES,
            ("tiny.py", "pipe.py", "folder.py", "loop.py", "saved", "."),
            NUMBERS,
        ]
    elif option in ("--only", "--skip", "--skip-type", "--layer"):
        pools = [NAMES]
    return None if chance.random() < 0.04 else chance.choice(chance.choice(pools))


def options_of(command: str) -> list[str]:
    """The options that the help of a command names."""
    shown = io.StringIO()
    kept, sys.argv = sys.argv, ["lcprune", command, "--help"]
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "200"
    try:
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            runpy.run_module("lcprune", run_name="__main__", alter_sys=False)
    finally:
        sys.argv = kept
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", shown.getvalue())))


def short(text: str) -> str:
    """A text for people, not too long."""
    plain = text if text.isprintable() and text else repr(text)
    return plain if len(plain) <= 60 else f"{plain[:40]}… ({len(text)})"
