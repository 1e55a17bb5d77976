"""What hostile and careless inputs do: tracebacks, hangs, damage. A row for every surface.

    python bench/fuzz.py                                    # goes on where it was stopped
    PYTHONPATH=OTHER/src python bench/fuzz.py --no-row      # of another checkout
    python bench/fuzz.py --surfaces images --number 123     # one try, and what came of it
    python bench/fuzz.py table                              # the table of docs/security.md

A try is one input on one of seven surfaces. It fails with an uncaught exception, more or less than
one line of error, an exit code that is not documented, a hang, an exception of the library's that is
no ``LcpruneError``, terminal escapes in what is printed, success where the input can't be right, a
file that is lost or damaged, a file touched outside of the directory, or code executed. The same
seed gives the same tries. What failed is listed in ``OUT/failures.md``. For Linux.
"""

# ruff: noqa: E501 (lists of values are read across)

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import runner

SURFACES = {
    "command lines": 650,
    "TOML": 650,
    "run directories": 650,
    "artifacts": 800,
    "images": 700,
    "weights": 550,
    "library calls": 1300,
}
"""How many tries each has by default."""

KEYS = ("surface", "of", "seed", "tries")


@cache
def package_commit() -> str:
    """The commit of the package that is tried, with a ``+`` where its files differ from it."""
    import lcprune

    folder = Path(str(lcprune.__file__)).parent

    def git(*arguments: str) -> str:
        return subprocess.check_output(["git", *arguments], cwd=folder, text=True).strip()

    try:
        return git("rev-parse", "--short=7", "HEAD") + (
            "+" if git("status", "--porcelain", ".") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class Fuzz:
    """All tries of a seed, made and run below a folder."""

    def __init__(self, out: Path, seed: int, name: str) -> None:
        from fuzzing.bases import Bases
        from fuzzing.tries import Ground, warm

        warm()
        self._ground = Ground(out / package_commit() / name.replace(" ", "-"))
        self._bases = Bases(self._ground, out / package_commit() / "bases")
        self._seed = seed
        self._surfaces: dict[str, Any] = {}
        self.failures: list[dict[str, Any]] = []
        self.out = self._ground.home

    def surface(self, name: str) -> Any:
        """What makes the tries of a surface."""
        if name not in self._surfaces:
            from fuzzing.artifacts import Artifacts
            from fuzzing.calls import Calls
            from fuzzing.command_lines import CommandLines
            from fuzzing.images import ImageTrees
            from fuzzing.run_directories import RunDirectories
            from fuzzing.toml_files import TomlFiles
            from fuzzing.weights import WeightFiles

            ground, seed, bases = self._ground, self._seed, self._bases
            makers: dict[str, Callable[[], Any]] = {
                "command lines": lambda: CommandLines(ground, seed, bases.run("saved")),
                "TOML": lambda: TomlFiles(ground, seed),
                "run directories": lambda: RunDirectories(ground, seed, bases),
                "artifacts": lambda: Artifacts(ground, seed, bases),
                "images": lambda: ImageTrees(ground, seed),
                "weights": lambda: WeightFiles(ground, seed),
                "library calls": lambda: Calls(ground, seed, bases),
            }
            self._surfaces[name] = makers[name]()
        return self._surfaces[name]

    def attempt(self, name: str, number: int) -> tuple[Any, Any, list[Any]]:
        """A try, how it ended, and what is wrong with that."""
        from fuzzing.tries import LAST_HANDLER, judged, run, snapshot, where

        surface = self.surface(name)
        for draw in range(20):
            folder = self._ground.fresh()
            chance = random.Random(f"{self._seed}/{name}/{number}/{draw}")
            try:
                one = surface.make(number, chance, folder)
                break
            except Exception:  # what was changed first may stand in the way of a second change
                print(f"{name} {number} can't be made", file=sys.stderr)
                last = traceback.format_exc()
        else:
            raise RuntimeError(last)
        before = snapshot(folder)
        outcome = run(one, self._ground)
        found = judged(one, outcome, self._ground, before)
        if any(f.kind == LAST_HANDLER for f in found) and not one.real:
            folder = self._ground.fresh()
            again = surface.make(
                number, random.Random(f"{self._seed}/{name}/{number}/{draw}"), folder
            )
            again = replace(again, arguments=(*again.arguments, "--debug"))
            place = where(run(again, self._ground).err)
            found = [replace(f, where=place) if f.kind == LAST_HANDLER else f for f in found]
        return one, outcome, found

    def measure(self, name: str, tries: int) -> runner.Row:
        """Tries and failures of a surface."""
        from fuzzing.tries import LAST_HANDLER

        self.surface(name)
        began, kinds, failed = time.monotonic(), Counter[str](), 0
        ends: Counter[str] = Counter()
        slowest = (0.0, "")
        (self.out / "tries.txt").write_text("")
        for number in range(tries):
            one, outcome, found = self.attempt(name, number)
            slowest = max(slowest, (outcome.seconds, one.what[:100]))
            ends[str(outcome.result.get("outcome", outcome.code))] += 1
            failed += any(f.kind != LAST_HANDLER for f in found)
            said = outcome.result.get("message") or outcome.err[-300:]
            with (self.out / "tries.txt").open("a", errors="backslashreplace") as file:
                file.write(
                    f"{number}\t{one.what[:150]!r}\t{outcome.code}\t{outcome.seconds:.1f}\t{said!r}\n"
                )
            for failure in found:
                kinds[failure.kind] += 1
                self.failures.append(
                    {
                        "surface": name, "number": number, "kind": failure.kind, "detail": failure.detail,
                        "where": failure.where, "what": one.what[:300],
                        "arguments": [a[:200] for a in one.arguments or ()],
                        "err": outcome.err[-1500:], "code": outcome.code, "seconds": round(outcome.seconds, 1),
                    }
                )  # fmt: skip
            if found:
                self.report()
            if number % 100 == 99:
                print(f"{name} {number + 1}/{tries}: {failed} failed", file=sys.stderr, flush=True)
        return {
            "tries": tries,
            "failures": failed,
            "last_handler": kinds.pop(LAST_HANDLER, 0),
            "kinds": dict(kinds.most_common()),
            "ends": dict(ends.most_common()),
            "distinct": len(self._groups(name)),
            "slowest": [round(slowest[0], 1), slowest[1].encode("ascii", "replace").decode()],
            "seconds": round(time.monotonic() - began, 1),
        }

    def _groups(self, surface: str | None = None) -> dict[tuple[str, ...], list[dict[str, Any]]]:
        found: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
        for f in self.failures:
            if surface in (None, f["surface"]):
                kind = f["detail"].partition(":")[0] if f["where"] else f["detail"][:40]
                if f["kind"] == "accepted":
                    kind = re.split(", |: ", f["what"])[1][:60]
                found[f["surface"], f["kind"], kind, f["where"]].append(f)
        return found

    def report(self) -> None:
        """Write what failed, one of a kind each."""
        lines = [f"# Failures at {package_commit()}, seed {self._seed}\n"]
        surface = ""
        groups = sorted(self._groups().items(), key=lambda i: (i[0][0], -len(i[1])))
        for (name, kind, _, where), members in groups:
            if name != surface:
                surface = name
                lines += [f"\n## {name}\n"]
            first = min(members, key=lambda f: len(f["what"]))
            numbers = ", ".join(str(f["number"]) for f in members[:8])
            lines += [
                f"- **{kind}** {first['detail']!r} at `{where or '–'}` ×{len(members)} (numbers {numbers})",
                f"  - {first['what']!r}",
            ]
            if first["arguments"]:
                lines += [f"  - `{' '.join(map(repr, first['arguments']))[:400]}`"]
            if first["kind"] in ("exit code", "noise", "escapes", "lost", "accepted"):
                lines += [f"  - exit {first['code']}, stderr {first['err'][-300:]!r}"]
        text = "\n".join(lines) + "\n"
        (self.out / "failures.md").write_text(text, encoding="utf-8", errors="backslashreplace")
        with (self.out / "failures.jsonl").open("w") as file:
            file.writelines(json.dumps(f) + "\n" for f in self.failures)


def show(fuzz: Fuzz, name: str, number: int) -> None:
    """One try, with all that it left."""
    one, outcome, found = fuzz.attempt(name, number)
    print(f"{name} {number}: {one.what!r}")
    print("arguments", one.arguments, "bad", one.bad, dict(one.environment))
    print("code", outcome.code, f"{outcome.seconds:.1f} s", dict(outcome.result))
    print("stdout", ascii(outcome.out[-2000:]))
    print("stderr", outcome.err[-6000:].encode("ascii", "backslashreplace").decode())
    for failure in found:
        print("FAILURE", failure)
    print(f"its files are in {fuzz.out / 'sandbox'}")


def table(_: argparse.Namespace) -> None:
    latest: dict[tuple[str, str], runner.Row] = {}
    for row in runner.rows("fuzz"):
        latest[row["of"], row["surface"]] = row
    commits = list(dict.fromkeys(of for of, _ in latest))
    shown = [commits[0], commits[-1]] if len(commits) > 1 else commits
    head = ["surface", *(f"tries, failures at {of}" for of in shown), f"kinds at {shown[0]}"]
    lines = []
    for surface in SURFACES:
        rows = [latest.get((of, surface), {}) for of in shown]
        kinds = ", ".join(f"{n} {kind}" for kind, n in (rows or [{}])[0].get("kinds", {}).items())
        lines.append(
            [surface, *(f"{r.get('tries', '–')}, {r.get('failures', '–')}" for r in rows), kinds]
        )
    totals = [
        [
            sum(latest.get((of, s), {}).get(key, 0) for s in SURFACES)
            for key in ("tries", "failures")
        ]
        for of in shown
    ]
    lines.append(["all", *(f"{tries}, {failures}" for tries, failures in totals), ""])
    print(runner.markdown(head, lines))


def main() -> None:
    bench = runner.Bench("fuzz", __doc__, KEYS, table)
    bench.argument("--surfaces", nargs="+", choices=list(SURFACES), default=list(SURFACES))
    bench.argument("--seed", type=int, default=0, help="of all that is drawn")
    bench.argument("--share", type=float, default=1.0, help="of the usual number of tries")
    bench.argument("--number", type=int, help="only this try of the surface, and show it")
    bench.argument("--out", type=Path, default=Path("runs/fuzz"), help="where tries are made")
    options = bench.parse()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # a fork has one thread, so let there be no others
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    fuzz = Fuzz(options.out, options.seed, "-".join(options.surfaces)[:60])
    if options.number is not None:
        for name in options.surfaces:
            show(fuzz, name, options.number)
        return
    failed = 0
    for name in options.surfaces:
        tries = max(1, round(SURFACES[name] * options.share))

        def measure(name: str = name, tries: int = tries) -> runner.Row:
            nonlocal failed
            row = fuzz.measure(name, tries)
            failed += row["failures"]
            return row

        bench.row(
            {"surface": name, "of": package_commit(), "seed": options.seed, "tries": tries}, measure
        )
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
