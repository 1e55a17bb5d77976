"""A run that is killed again and again, and resumed each time, against one that never was.

Each process ends at a point between two changes to the run's files, or in the middle of one,
without closing or flushing anything; others are killed from outside at random moments. At the end
plan, weights, journal and summary are compared with the unbroken run's, byte for byte but for what
was measured (seconds, memory). A row goes into ``results/endurance.jsonl``.

    python bench/endurance.py

By default one run ends at every point of its way once, each process a little further on than the
last; others begin anew, end at one point and, resumed, at another; and some are killed from
outside. ``--kinds`` ends one run once for each file and each kind of change. For Linux.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import runner
from lcprune.errors import LcpruneError
from lcprune.runs import PruneOptions, prune_job
from lcprune.searching import read_journal
from write_points import END, EXIT_CODE, GO_ON, HALF, Point, end, watched

OPTIONS = PruneOptions(
    model="digits_resnet",
    data="digits",
    weights="random",
    base_epochs=1,
    budget=("macs=50%",),
    trials=5,
    recalibrate_images=100,
    fitness_images=100,
    search_dtype="float32",
    train_dtype="float32",
    batch_size=256,
    finetune_epochs=2,
    seed=1,
)
ARTIFACT, BASE, GRAPH, JOURNAL, PLAN, RUN, SUMMARY, WEIGHTS = (
    "artifact.json", "base.safetensors", "graph.json", "search.sqlite", "plan.json", "run.json",
    "summary.json", "model.safetensors",
)  # fmt: skip
VARYING = ("search_seconds", "finetune_seconds", "peak_rss_mb")
"""What a run took, in its summary; of latencies only the milliseconds vary."""

_MOST_RUNS, _MOST_ENDS = 5, 400
LATENCIES = {"latency_ms_before", "latency_ms_after"}


Label = tuple[str, int, int]
"""A point of any process: its kind, which version of the file it makes, and which of its kind."""


@dataclass(frozen=True)
class At:
    """Ends a process at its point of this number."""

    number: int
    half: bool


@dataclass(frozen=True)
class After:
    """Kills a process from outside when it has run for so many seconds."""

    seconds: float


class Way:
    """Which points a run has come to, over all its processes, and where they ended.

    A point is told by what it changes: the version of a file, which is how often its like was
    completed before. So a resumed process, which does what was not completed again, is not ended
    where an earlier one was.
    """

    def __init__(self, unbroken: Sequence[Point], kinds: Sequence[str] | None = None) -> None:
        self._kinds = kinds
        # What a resumed process writes again and again is no new version.
        self._versions = Counter(completed(unbroken))
        self._completed: Counter[str] = Counter()
        self._ended: set[tuple[object, bool]] = set()

    def begin(self) -> None:
        """A run begins anew."""
        self._completed.clear()

    def past(self, points: Sequence[Point]) -> None:
        """A process ended at the last of ``points``, or after it."""
        self._completed.update(completed(points[:-1]))

    def ends_at(self, points: Sequence[Point]) -> str:
        """What shall happen to a process at the last of its ``points``."""
        point = points[-1]
        if self._kinds is not None:
            wanted = [False] if point.kind in self._kinds else []
            label: object = point.kind
            if point.carries:
                wanted = [True] if wanted else []
        else:
            wanted = [False, True] if point.carries else [False]
            label = self._label(points)
        for half in wanted:
            if (label, half) not in self._ended:
                return HALF if half else END
        return GO_ON

    def ended(self, points: Sequence[Point], what: str) -> None:
        label = points[-1].kind if self._kinds is not None else self._label(points)
        self._ended.add((label, what == HALF))

    def _label(self, points: Sequence[Point]) -> Label:
        point = points[-1]
        kind, file = point.kind, point.file.removeprefix("partial ")
        if point.action.startswith("sqlite"):
            file = f"{JOURNAL}-journal"
        elif kind == "fsync .":  # that of the name which a file has just taken
            file = next(p.file for p in reversed(points) if p.action == "replace")
            kind = f"{kind} after {file}"
        done = self._completed + Counter(completed(points[:-1]))
        version = min(done[file], self._versions[file])
        since = 0
        for earlier in reversed(points[:-1]):
            if earlier.action in _COMPLETING:
                break
            since += earlier.kind == point.kind
        return kind, version, since


_COMPLETING = ("replace", "sqlite unlink")
_AGAIN = (PLAN, WEIGHTS, ARTIFACT)


def completed(points: Sequence[Point]) -> Iterator[str]:
    """The files that have a new version after a process went past ``points``.

    Those of the network don't count: a resumed process writes them all again.
    """
    begun = False
    for point in points:
        begun |= point.action == "sqlite pwrite" and point.file.endswith("-journal")
        if point.action == "replace" and point.file not in _AGAIN:
            yield point.file
        elif point.action == "sqlite unlink":
            if begun:  # else what a killed process had begun is undone
                yield point.file
            begun = False


@dataclass
class Tally:
    """What was done to the runs, and how they ended."""

    kills: Counter[str]
    runs: int = 0
    resumes: int = 0
    differing: int = 0
    failed: int = 0


class Endurance:
    """Runs, killed and unbroken, in one directory; each process is forked off this one."""

    def __init__(self, home: Path, options: PruneOptions) -> None:
        self._home = home
        self._options = options
        self._unbroken = home / "unbroken"
        self._out = home / "killed"
        self.tally = Tally(Counter())

    def unbroken(self) -> list[Point]:
        """Make the run that the others are compared with; its points.

        In this process, so that what is imported on the way is there for all that are forked.
        """
        points: list[Point] = []

        def meet(point: Point) -> str:
            points.append(point)
            return GO_ON

        with watched(self._unbroken, meet):
            self._prune(self._unbroken)
        return points

    def all_the_way(self, points: Sequence[Point], kinds: Sequence[str] | None = None) -> None:
        """One run that ends at every point, or at the first of each kind; begun anew for those
        that it came past."""
        way = Way(points, kinds)
        for _ in range(_MOST_RUNS):
            way.begin()
            kills = 0
            while self._killed(way):
                kills += 1
                if kills > _MOST_ENDS:
                    raise SystemExit(f"no end in sight: {self.tally.kills}")
            self._compare(f"{kills} ends on its way")
            if not kills or kinds is not None:
                return

    def endure(self, ends: Sequence[At]) -> None:
        """Go through ``ends``, one process each, resume to the end, and compare.

        Where a process comes to its own end before, a new run begins for those that are left.
        """
        left = list(ends)
        while left:
            while left and self._killed(left.pop(0)):
                pass
            if not (self._out / SUMMARY).exists():
                self._wait(self._start(None))
            self._compare(str(list(ends)))

    def from_outside(self, count: int, seconds: float, chance: random.Random) -> None:
        """Kill ``count`` processes from outside within ``seconds``: each run until it ends."""
        kills = 0
        while kills < count:
            while kills < count and self._killed(After(chance.uniform(0, seconds))):
                kills += 1
            if not (self._out / SUMMARY).exists():
                self._wait(self._start(None))
            self._compare("kills from outside")

    def _compare(self, after: str) -> None:
        self.tally.runs += 1
        found = [f"it did not end: {self._told()}"]
        if (self._out / SUMMARY).exists():
            found = differences(self._unbroken, self._out)
        self.tally.differing += bool(found)
        for line in found:
            print(f"after {after}: {line}", flush=True)
        shutil.rmtree(self._out)

    def _killed(self, how: At | After | Way) -> bool:
        """Start or resume a run and end it; false where it came to its own end."""
        self.tally.resumes += (self._out / RUN).exists()
        (self._home / "met").write_text("")
        pid = self._start(how)
        if isinstance(how, After):
            time.sleep(how.seconds)
            os.kill(pid, signal.SIGKILL)
        code = self._wait(pid)
        met = [json.loads(line) for line in (self._home / "met").read_text().splitlines()]
        points = [Point(**point) for point, _ in met]
        if code == -signal.SIGKILL:
            self.tally.kills[f"kill -9 in {stage(self._out)}"] += 1
        elif code == EXIT_CODE:
            what = met[-1][1]
            self.tally.kills[f"{'half of' if what == HALF else 'before'} {points[-1].kind}"] += 1
            if isinstance(how, Way):
                how.ended(points, what)
                how.past(points)
        elif code != 0:
            self.tally.failed += 1
            print(f"{how}: ended in {code}: {self._told()}", flush=True)
        return code in (-signal.SIGKILL, EXIT_CODE)

    def _start(self, how: At | After | Way | None) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            log = os.open(self._home / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if isinstance(how, At | Way):
                with watched(self._out, self._meet(how)):
                    self._prune(self._out)
            else:
                self._prune(self._out)
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _prune(self, out: Path) -> None:
        prune_job(self._options, out, resume=True)

    def _meet(self, how: At | Way) -> Callable[[Point], str]:
        points: list[Point] = []

        def meet(point: Point) -> str:
            points.append(point)
            if isinstance(how, Way):
                what = how.ends_at(points)
            else:
                half = how.half and point.carries
                what = (HALF if half else END) if point.number == how.number else GO_ON
            with (self._home / "met").open("a") as file:
                file.write(json.dumps([vars(point), what]) + "\n")
            if what == END:
                end()
            return what

        return meet

    def _wait(self, pid: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _told(self) -> str:
        return (self._home / "log").read_text()[-2000:]


def stage(out: Path) -> str:
    """What a killed run was at, by what it left."""
    if not (out / BASE).exists():
        return "training the base network"
    try:
        record = read_journal(out / JOURNAL)
    except LcpruneError:
        return "search"
    return "search" if len(record.trials) < record.total else "fine-tuning and after"


def differences(one: Path, other: Path) -> list[str]:
    """Where two finished runs are not equal, a line each."""
    found = []
    for name in (PLAN, WEIGHTS, BASE, ARTIFACT, GRAPH):
        paths = [out / name for out in (one, other)]
        whole = [path.read_bytes() if path.exists() else None for path in paths]
        if whole[0] != whole[1]:
            found.append(f"{name} differs")
    trials = [read_journal(out / JOURNAL).trials for out in (one, other)]
    if trials[0] != trials[1]:
        found.append(f"the journal's trials differ: {trials[0]} and {trials[1]}")
    summaries = [_fixed(json.loads((out / SUMMARY).read_text())) for out in (one, other)]
    for key in summaries[0].keys() | summaries[1].keys():
        values = [summary.get(key) for summary in summaries]
        if values[0] != values[1]:
            found.append(f"{key} of the summary differs: {values[0]} and {values[1]}")
    # Who held the lock last may be left.
    names = [sorted(p.name for p in out.iterdir() if p.suffix != ".lock") for out in (one, other)]
    if names[0] != names[1]:
        found.append(f"the files differ: {names[0]} and {names[1]}")
    return found


def _fixed(summary: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in summary.items() if key not in VARYING}
    for key in LATENCIES & kept.keys():
        kept[key] = {**kept[key], "value": None}
    if kept.get("latency"):
        kept["latency"] = [{**e, "before_ms": None, "after_ms": None} for e in kept["latency"]]
    return kept


def spread(points: Sequence[Point], count: int, chance: random.Random) -> Iterator[list[At]]:
    """``count`` points from first to last, with one soon after the run was resumed there."""
    for i in range(count):
        number = i * len(points) // count + chance.randrange(max(1, len(points) // count))
        yield [At(number, chance.random() < 0.5), At(chance.randrange(30), chance.random() < 0.5)]


def one_of_each(points: Iterable[Point]) -> list[str]:
    """A kind of point for each file, another action in turn."""
    by_file: dict[str, list[str]] = {}
    for point in points:
        if not point.file.endswith(".lock"):
            kinds = by_file.setdefault(point.file.removeprefix("partial "), [])
            if point.kind not in kinds:
                kinds.append(point.kind)
    return [kinds[turn % len(kinds)] for turn, kinds in enumerate(by_file.values())]


def main() -> None:
    bench = runner.Bench("endurance", __doc__)
    bench.argument("--kinds", action="store_true", help="each kind of change once")
    bench.argument("--fresh", type=int, default=6, help="how many runs with two ends each")
    bench.argument("--real", type=int, default=20, help="how many are killed from outside")
    bench.argument("--seed", type=int, default=0, help="of the random moments")
    options = bench.parse()
    torch.set_num_threads(options.threads or 1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what was used before a fork can't be after it
    equal = []

    def measure() -> runner.Row:
        row = endure(options.kinds, options.fresh, options.real, options.seed)
        equal.append(row["equal"])
        return row

    bench.row({"seed": options.seed}, measure)
    raise SystemExit(0 if all(equal) else 1)


def endure(kinds: bool, fresh: int, real: int, seed: int) -> runner.Row:
    """Every end, and how the runs came out."""
    chance = random.Random(seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        endurance = Endurance(Path(home), OPTIONS)
        start = time.monotonic()
        points = endurance.unbroken()
        seconds = (time.monotonic() - start) / 2  # of which the first half was for imports
        endurance.all_the_way(points, one_of_each(points) if kinds else None)
        for ends in spread(points, fresh, chance):
            endurance.endure(ends)
        endurance.from_outside(real, seconds, chance)
    tally = endurance.tally
    return {
        "points": len(points),
        "kinds": len({point.kind for point in points}),
        "kills": sum(tally.kills.values()),
        "by_kind": dict(sorted(tally.kills.items())),
        "runs": tally.runs,
        "resumes": tally.resumes,
        "failed": tally.failed,
        "differing": tally.differing,
        "equal": not tally.failed and not tally.differing,
        "seconds": round(time.monotonic() - began, 1),
    }


if __name__ == "__main__":
    main()
