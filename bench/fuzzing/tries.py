"""A try: one hostile or careless input, run in a process of its own and judged.

A try is run in a fork of a process that has imported everything, which takes milliseconds, or as
``python -m lcprune`` in a fresh process. What it must never do is told by ``judged``.
"""

from __future__ import annotations

import faulthandler
import hashlib
import importlib
import io
import json
import os
import pkgutil
import re
import resource
import runpy
import select
import signal
import stat
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HANG = 30.0
"""Seconds after which a try hangs, of its processors where others use them too."""

MOST, IDLE = 240.0, 10.0
"""Seconds of the clock that a busy try has in all, and after which an idle one hangs as well."""

DOCUMENTED = {0, 1, 2, 130, 141, 143, 129}
"""Exit codes of the command line."""

INTERRUPTED, BAD_INPUT = 130, 2
MEMORY = 4 * 2**30
"""Bytes that a try may take beyond what the process that it is forked from has."""

VOLATILE = re.compile(
    r"(^|/)(\.partial-[^/]*|run\.json|(base-)?checkpoint\.pt|search\.sqlite(-\w+)?)$"
)
"""Files that a run may write even where it is refused later, if it doesn't lose them."""

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What steers a terminal, or turns the text on it around."""

UNEXPECTED = re.compile(
    r"error: unexpected (\w+(Error|Exception|Exit|Warning)?\b.*?)( \(--debug.*)?$"
)
LAST_HANDLER = "last handler"
"""An exception that only the last handler of the command line caught: one line, and a documented
exit code, so no failure; but nobody foresaw that input."""

FRAME = re.compile(r'File ".*/(lcprune/[\w/]+\.py)", line (\d+)')


FILTERS: list[Any] = []
"""Python's own filters of warnings, which a try has again."""


@dataclass(frozen=True)
class Try:
    """``arguments`` of the command line, or a ``call`` of the library; ``what`` says it in words.

    ``bad``: the input can't be right, so success is a failure. ``interrupt``: seconds after which
    ``signal`` is sent. ``offline``: nothing may be asked of the network. ``nowhere``: the working
    directory is gone. ``limits`` of the system: ``NOFILE``, ``FSIZE``, and ``AS`` beyond what is
    taken. ``environment`` maps a name to none where it is to be unset. ``stdout``,
    ``stderr``: ``file``, ``closed``, ``full``, ``broken`` (a pipe that nobody reads).
    """

    what: str
    arguments: tuple[str, ...] | None = None
    call: Callable[[], object] | None = None
    bad: bool = False
    interrupt: float | None = None
    signal: int = signal.SIGINT
    environment: Mapping[str, str | None] = field(default_factory=dict)
    stdin: str = "null"
    stdout: str = "file"
    stderr: str = "file"
    encoding: str = "utf-8"
    real: bool = False
    offline: bool = False
    nowhere: bool = False
    limits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """What went wrong: its kind, and what tells it from others of its kind."""

    kind: str
    detail: str
    where: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a process ended: exit code (negative: by a signal), or none where it hung."""

    code: int | None
    out: str
    err: str
    seconds: float
    result: Mapping[str, Any]
    stack: str = ""
    network: str = ""


class Ground:
    """The folder in which tries are made: a sandbox for each, and a canary beside it.

    ``canary`` holds files that no try may touch, and code that leaves ``mark`` when it runs.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.sandbox = self.home / "sandbox"
        self.streams = self.home / "streams"
        self.cache = self.home / "cache"
        self.canary = self.home / "canary"
        self.mark = self.home / "executed"
        for folder in (self.sandbox, self.streams, self.cache, self.canary):
            folder.mkdir(parents=True, exist_ok=True)
        self.precious = self.canary / "precious.txt"
        self.restore()

    def restore(self) -> None:
        """Put the canary back as it was."""
        erase(self.canary)
        self.canary.mkdir()
        self.precious.write_text("root:x:0:0:root:/root:/bin/sh\n" * 3)
        (self.canary / "folder").mkdir()
        (self.canary / "folder" / "kept.txt").write_text("kept\n")
        evil = self.canary / "evil.py"
        evil.write_text(self.evil())
        programs = self.canary / "bin"
        programs.mkdir()
        for name in ("gs", "gswin32c", "djpeg", "xv", "display"):
            (programs / name).write_text(f"#!/bin/sh\necho {name} >> '{self.mark}'\nexit 1\n")
            (programs / name).chmod(0o755)
        self.mark.unlink(missing_ok=True)
        self.untouched = snapshot(self.canary)

    def evil(self) -> str:
        """Python code that leaves the mark when it is imported, and has what factories return."""
        return (
            "from pathlib import Path\n"
            f"Path({str(self.mark)!r}).write_text('executed')\n"
            "def make(*a, **k):\n    raise ValueError('run')\n"
        )

    def fresh(self) -> Path:
        """An empty sandbox."""
        erase(self.sandbox)
        self.sandbox.mkdir()
        return self.sandbox


def erase(path: Path) -> None:
    """Remove a tree that may hold anything, and follow no link."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if stat.S_ISDIR(mode):
        path.chmod(0o755)
        for child in path.iterdir():
            erase(child)
        path.rmdir()
    else:
        path.unlink()


def snapshot(folder: Path) -> dict[str, str]:
    """What is in a folder: kind, and what the files hold."""
    found = {}
    for base, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(base, name)
            found[str(path.relative_to(folder))] = _state(path)
    return found


def _state(path: Path) -> str:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return f"link {path.readlink()}"
    if not stat.S_ISREG(status.st_mode):
        return f"kind {stat.S_IFMT(status.st_mode)}"
    if status.st_size > 2**27:  # sparse files of the fuzzer's own
        return f"large {status.st_size}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def warm() -> None:
    """Import all that a try may need, so that forks have it."""
    import torch

    torch.set_num_threads(1)
    FILTERS[:] = warnings.filters
    warnings.simplefilter("ignore")
    import lcprune

    for module in pkgutil.walk_packages(lcprune.__path__, "lcprune."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ImportError:  # of a package that is not installed
                continue
    for name in ("torchvision.models", "PIL.Image", "sklearn.datasets", "tomllib"):
        importlib.import_module(name)
    import PIL.Image

    PIL.Image.init()


def run(one: Try, ground: Ground, limit: float = HANG) -> Outcome:
    """Run a try to its end, or to its limit."""
    ground.mark.unlink(missing_ok=True)
    for name in ("stdout", "stderr", "result", "stack", "network"):
        (ground.streams / name).write_bytes(b"")
    began = time.monotonic()
    if one.real:
        child = _start(one, ground)
    else:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            try:
                _child(one, ground)
            finally:
                os._exit(97)
    code = _wait(child, one, limit)
    seconds = time.monotonic() - began

    def text(name: str) -> str:
        return (ground.streams / name).read_bytes()[:200_000].decode("utf-8", "replace")

    found = text("result")
    return Outcome(
        code, text("stdout"), text("stderr"), seconds, json.loads(found or "{}"), text("stack"),
        text("network"),
    )  # fmt: skip


def _wait(child: int, one: Try, limit: float) -> int | None:
    """The exit code of a process, negative for a signal, none for a hang; its group is ended."""
    descriptor = os.pidfd_open(child)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        if one.interrupt is not None and not poll.poll(one.interrupt * 1000):
            os.kill(child, one.signal)
        hung = not poll.poll(limit * 1000)
        if hung and limit >= HANG:
            hung = not _ends(child, poll, limit)
        if hung and not one.real:
            os.kill(child, signal.SIGUSR1)  # writes where it is
            time.sleep(0.3)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(descriptor)
    return None if hung else os.waitstatus_to_exitcode(status)


def _ends(child: int, poll: select.poll, limit: float) -> bool:
    """Whether a process that is slow only because others are busy too comes to its end."""
    began = last = time.monotonic()
    used = _processor_seconds(child)
    while time.monotonic() - began < MOST:
        if poll.poll(1000):
            return True
        now = _processor_seconds(child)
        if now > used + 0.05:
            used, last = now, time.monotonic()
        if now >= limit or time.monotonic() - last >= IDLE:
            return False
    return False


def _processor_seconds(group: int) -> float:
    """What all processes of a group have used."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError, ValueError):
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _environment(one: Try, ground: Ground) -> dict[str, str]:
    values = {
        **os.environ,
        "LCPRUNE_CACHE": str(ground.cache),
        "PATH": f"{ground.canary / 'bin'}:{os.environ.get('PATH', '')}",
        "COLUMNS": "100",
        "HOME": str(ground.home),
        "NO_PROXY": "*",
    }
    for name, value in one.environment.items():
        values.pop(name, None)
        if value is not None:
            values[name] = value
    return values


def _open_streams(one: Try, ground: Ground) -> tuple[int, int, int]:
    """Descriptors for stdin, stdout and stderr; -1 for a closed one."""

    def target(kind: str, name: str) -> int:
        if kind == "closed":
            return -1
        if kind == "full":
            return os.open("/dev/full", os.O_WRONLY)
        if kind == "broken":
            reading, writing = os.pipe()
            os.close(reading)
            return writing
        return os.open(ground.streams / name, os.O_WRONLY | os.O_APPEND)

    stdin = -1 if one.stdin == "closed" else os.open("/dev/null", os.O_RDONLY)
    return stdin, target(one.stdout, "stdout"), target(one.stderr, "stderr")


def _start(one: Try, ground: Ground) -> int:
    """A fresh interpreter in a session of its own."""
    descriptors = _open_streams(one, ground)
    arguments = one.arguments or ()

    def closed() -> None:
        for number in (signal.SIGINT, signal.SIGHUP):  # a job in the background ignores them
            signal.signal(number, signal.SIG_DFL)
        for number, descriptor in enumerate(descriptors):
            if descriptor < 0:
                os.close(number)

    process = subprocess.Popen(
        [sys.executable, "-m", "lcprune", *arguments],
        cwd=ground.sandbox,
        env={**_environment(one, ground), "PYTHONIOENCODING": one.encoding},
        stdin=max(descriptors[0], -1) if descriptors[0] >= 0 else None,
        stdout=descriptors[1] if descriptors[1] >= 0 else None,
        stderr=descriptors[2] if descriptors[2] >= 0 else None,
        start_new_session=True,
        preexec_fn=closed,
    )
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)
    process.returncode = 0  # it is waited for by its number
    return process.pid


def _child(one: Try, ground: Ground) -> None:
    """Become the process of a try; never returns."""
    warnings.filters[:] = FILTERS
    os.setsid()
    os.chdir(ground.sandbox)
    stack = os.open(ground.streams / "stack", os.O_WRONLY)
    faulthandler.register(signal.SIGUSR1, file=stack, all_threads=True)
    _note_network(ground)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY,) * 2)
    if one.nowhere:
        gone = ground.sandbox / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_IGN
        )
    for number, descriptor in enumerate(_open_streams(one, ground)):
        if descriptor >= 0:
            os.dup2(descriptor, number)
        else:
            os.close(number)
    sys.stdin = None if one.stdin == "closed" else open(0, closefd=False)  # noqa: SIM115
    sys.stdout = _writer(1, one.stdout, one.encoding, "strict")
    sys.stderr = _writer(2, one.stderr, one.encoding, "backslashreplace")
    environment = _environment(one, ground)
    for name in [*os.environ]:
        if name not in environment:
            del os.environ[name]
    os.environ.update(environment)
    for name, most in one.limits.items():
        most += taken if name == "AS" else 0
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    if one.call is not None:
        _call(one.call, ground)
    code = _command(one.arguments or ())
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        _complain(f"Exception ignored in sys.stdout: {type(error).__name__}")
        code = 120
    os._exit(code)


def _note_network(ground: Ground) -> None:
    """Write down what is asked of the network from now on."""
    asked = os.open(ground.streams / "network", os.O_WRONLY | os.O_APPEND)

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event in ("urllib.Request", "socket.getaddrinfo", "webbrowser.open"):
            os.write(asked, f"{event} {details[:2]}\n"[:300].encode("utf-8", "replace"))

    sys.addaudithook(hook)


def _writer(number: int, kind: str, encoding: str, errors: str) -> Any:
    if kind == "closed":
        return None
    raw = open(number, "wb", closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(raw, encoding, errors, line_buffering=number == 2, write_through=False)


def _complain(text: str) -> None:
    if sys.stderr is not None:
        try:
            print(text, file=sys.stderr, flush=True)
        except OSError:
            return


def _command(arguments: Sequence[str]) -> int:
    """What ``python -m lcprune`` does, and the exit code that the interpreter ends with."""
    sys.argv = ["lcprune", *arguments]
    try:
        runpy.run_module("lcprune", run_name="__main__", alter_sys=False)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return (ended.code or 0) & 0xFF
        _complain(str(ended.code))
        return 1
    except BaseException:
        _complain(traceback.format_exc())
        return 1
    return 0


def _call(call: Any, ground: Ground) -> None:
    import lcprune
    from lcprune.errors import LcpruneError

    # Not by its name in a path: a checkout may be in a folder of that name.
    package = f"{Path(lcprune.__file__).parent}{os.sep}"
    found: dict[str, Any] = {"outcome": "returned"}
    try:
        found["value"] = type(call()).__name__
    except LcpruneError as error:
        found = {"outcome": "refused", "type": type(error).__name__, "message": str(error)}
    except BaseException as error:
        frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        ours = [i for i, name in enumerate(frames) if name.startswith(package)]
        # What a function of the user's raises goes through, as it is.
        theirs = ours and any(name == call.__code__.co_filename for name in frames[ours[0] :])
        found = {
            "outcome": "raised by the user" if theirs else "raised",
            "type": type(error).__name__,
            "message": str(error)[:300],
            "where": where("".join(traceback.format_exception(error))),
        }
    (ground.streams / "result").write_text(json.dumps(found))
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(0)


def where(text: str) -> str:
    """The deepest line of lcprune in a traceback."""
    frames = FRAME.findall(text)
    frames = [frame for frame in frames if not frame[0].startswith("lcprune/__main__")]
    return ":".join(frames[-1]) if frames else ""


def judged(one: Try, outcome: Outcome, ground: Ground, before: Mapping[str, str]) -> list[Failure]:
    """All that is wrong with how a try ended; ``before`` is what its sandbox held."""
    found = []
    if outcome.code is None:
        found.append(Failure("hang", f"over {HANG:.0f} s", _hang_at(outcome.stack)))
    elif outcome.code < 0 and one.interrupt is not None and -outcome.code == one.signal:
        pass  # before there was anything of lcprune that could have caught it
    elif outcome.code < 0:
        found.append(Failure("crash", signal.Signals(-outcome.code).name))
    else:
        found += _of_call(one, outcome) if one.call is not None else _of_command(one, outcome)
    if one.offline and outcome.network:
        found.append(Failure("network", outcome.network.splitlines()[0][:100]))
    if ground.mark.exists():
        found.append(Failure("executed", ground.mark.read_text()[:40].strip()))
    now = snapshot(ground.canary)
    if now != ground.untouched:
        found.append(Failure("outside touched", _first_change(ground.untouched, now)))
        ground.restore()
    ground.mark.unlink(missing_ok=True)
    refused = outcome.code == BAD_INPUT or outcome.result.get("outcome") == "refused"
    if refused or outcome.code in (None, 1):
        lost = _lost(before, snapshot(ground.sandbox))
        if lost:
            found.append(Failure("lost", lost))
    return found


def _of_call(one: Try, outcome: Outcome) -> list[Failure]:
    result = outcome.result
    if not result:
        return [Failure("exit code", f"{outcome.code} of a call")]
    if result["outcome"] == "raised":
        if not result["where"] and re.search(
            r"unexpected keyword|missing \d+ req", result["message"]
        ):
            return []  # Python's own answer to a call that this version doesn't have
        detail = f"{result['type']}: {_plain(result['message'])[:120]}"
        return [Failure("foreign exception", detail, result["where"])]
    if result["outcome"] == "refused" and "\n" in result["message"].strip():
        return [Failure("several lines", _plain(result["message"])[:100])]
    if result["outcome"] == "returned" and one.bad:
        return [Failure("accepted", one.what)]
    return []


def _of_command(one: Try, outcome: Outcome) -> list[Failure]:
    found, both = [], outcome.out + outcome.err
    if one.interrupt is not None and one.real and "lcprune/" not in both and "Traceback" in both:
        return []  # Python itself was interrupted, while it began
    debug = "--debug" in (one.arguments or ())  # asks for tracebacks
    if debug:
        both = re.sub(r"(?m)^(Traceback|Exception ignored)", "asked for", both)
    if "Traceback (most recent call last)" in both:
        last = [
            line
            for line in both.splitlines()
            if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit|Warning|Abort)?\b(:|$)", line)
        ]
        found.append(Failure("traceback", _plain(last[-1] if last else "")[:120], where(both)))
    elif "Exception ignored" in both:
        found.append(Failure("traceback", "Exception ignored", where(both)))
    if outcome.code not in DOCUMENTED and not (found and outcome.code == 1):
        found.append(Failure("exit code", f"{outcome.code}"))
    lines = [line for line in outcome.err.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    if outcome.code in (1, BAD_INPUT) and not found and one.stderr == "file":
        if len(errors) != 1:
            found.append(Failure("exit code", f"{outcome.code} with {len(errors)} lines of error"))
        foreign = [n for n in lines if not n.startswith(("error:", "warning:"))]
        if foreign and not debug:
            found.append(Failure("noise", _plain(re.sub(r"\d+", "N", foreign[0]))[:100]))
    if errors and (told := UNEXPECTED.match(errors[0])):
        found.append(Failure(LAST_HANDLER, _plain(told[1])[:120]))
    if outcome.code == 0 and one.bad:
        found.append(Failure("accepted", one.what))
    if CONTROL.search(both):
        found.append(Failure("escapes", repr(CONTROL.findall(both)[0])))
    return found


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else "?" for c in text).split())


def _hang_at(stack: str) -> str:
    """The innermost line of lcprune; faulthandler writes the innermost first."""
    frames = FRAME.findall(stack)
    return ":".join(frames[0]) if frames else ""


def _first_change(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    names = sorted(set(before) | set(now))
    return next(name for name in names if before.get(name) != now.get(name))


def _lost(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The first file that was there and is gone, or is another one."""
    for name, state in before.items():
        if name not in now:
            if "/.partial-" not in f"/{name}":
                return f"{name} is gone"
        elif now[name] != state and not VOLATILE.search(name):
            return f"{name} is another"
    return ""
