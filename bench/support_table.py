"""The table of docs/support.md, from the latest rows of ``zoo.py`` and ``side_by_side.py``.

python bench/support_table.py    # writes between the two markers of the page
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import workers
from zoo import OUTPUT

Row = dict[str, Any]

PAGE = Path(__file__).parents[1] / "docs" / "support.md"
BEGIN, END = "<!-- begin of the table -->", "<!-- end of the table -->"
OURS = ("exact", "exact except", "refused", "blind", "wrong")
PEERS = ("right", "silently wrong", "unpruned", "exception", "not judged")
FAMILIES = ("BatchNorm", "LayerNorm", "others")
OTHER_NORMS = ("GroupNorm", "InstanceNorm", "ResponseNorm", "RmsNorm", "RMSNorm", "SimpleNorm")
REASONS = 20


def family(norms: Iterable[str]) -> str:
    """Which family of norms a network belongs to, by the names of its classes.

    Wrappers whose name has a Norm in it (``ConvNormAct``) say nothing.
    """
    kinds = set()
    for name in norms:
        for kind in ("BatchNorm", "LayerNorm", *OTHER_NORMS):
            if kind in name and name != "GroupNorm1":
                kinds.add(kind)
        if name == "GroupNorm1":  # over all channels and positions: neither of the two
            kinds.add(name)
    return kinds.pop() if kinds in ({"BatchNorm"}, {"LayerNorm"}) else "others"


def content(ours: dict[str, Row], peers: dict[str, Row]) -> str:
    """Everything between the markers."""
    if not ours:
        return "No rows yet."
    parts = [_headline(ours, peers), _table(ours, peers)]
    if peers:
        parts.append(_exceptions(peers.values()))
    parts += [_left_over(ours.values()), _stays(ours.values())]
    return "\n\n".join(part for part in parts if part)


def write(page: Path, text: str) -> None:
    """Replace what stands between the markers of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{page} lacks the markers {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def _headline(ours: dict[str, Row], peers: dict[str, Row]) -> str:
    good = sum(row["verdict"] in ("exact", "exact except") for row in ours.values())
    commits = sorted({row["commit"] for row in [*ours.values(), *peers.values()]})
    machines = sorted({row["machine"] for row in ours.values()})
    versions = sorted({row["torch"] for row in ours.values()})
    return (
        f"{len(ours)} networks, {good} of them exact or exact except "
        f"({100 * good / len(ours):.1f} %). Torch-Pruning has rows for {len(peers)}. "
        f"PyTorch {', '.join(versions)}; {'; '.join(machines)}; commits {', '.join(commits)}."
    )


def _table(ours: dict[str, Row], peers: dict[str, Row]) -> str:
    head = ["source", "norms", "networks", *OURS, "coverage"]
    head += [f"TP {verdict}" for verdict in PEERS] if peers else []
    head += ["TP coverage", "seconds, ours / TP's"] if peers else []
    lines = []
    keys = sorted({(_source(name), family(r.get("norms", ()))) for name, r in ours.items()},
                  key=lambda key: (key[0], FAMILIES.index(key[1])))  # fmt: skip
    for source, norms in keys:
        names = [
            name
            for name, row in ours.items()
            if (_source(name), family(row.get("norms", ()))) == (source, norms)
        ]
        lines.append(_line(source, norms, names, ours, peers))
    lines.append(_line("all", "", list(ours), ours, peers))
    return _markdown(head, lines)


def _line(
    source: str, norms: str, names: Sequence[str], ours: dict[str, Row], peers: dict[str, Row]
) -> list[str]:
    mine = [ours[name] for name in names]
    counts = Counter(row["verdict"] for row in mine)
    cells = [source, norms, str(len(mine)), *(str(counts[verdict]) for verdict in OURS)]
    cells.append(_median(mine, lambda row: row.get("coverage")))
    if peers:
        theirs = [peers[name] for name in names if name in peers]
        counts = Counter(row["verdict"] for row in theirs)
        cells += [str(counts[verdict]) for verdict in PEERS]
        cells += [_median(theirs, lambda row: row.get("coverage")), _median(theirs, _ratio)]
    return cells


def _exceptions(peers: Iterable[Row]) -> str:
    """At which step Torch-Pruning raises, and what."""
    failed = [row for row in peers if row["verdict"] == "exception"]
    if not failed:
        return ""
    kinds = Counter((row["step"], row["why"].partition(":")[0]) for row in failed)
    listed = ", ".join(f"{kind} at {step} ({n})" for (step, kind), n in kinds.most_common(8))
    return f"What Torch-Pruning raises: {listed}."


def _left_over(ours: Iterable[Row]) -> str:
    """The networks that are neither exact nor exact except, with their reasons."""
    rows = [row for row in ours if row["verdict"] not in ("exact", "exact except")]
    if not rows:
        return ""
    lines = [
        [f"`{row['model']}`", row["verdict"], _number(row.get("coverage")), _cell(_why(row))]
        for row in sorted(rows, key=lambda row: (OURS.index(row["verdict"]), row["model"]))
    ]
    title = "### Networks that are neither exact nor exact except"
    return f"{title}\n\n{_markdown(['network', 'verdict', 'coverage', 'reason'], lines)}"


def _why(row: Row) -> str:
    if "why" in row:
        return str(row["why"])
    if row["verdict"] == "wrong":
        return f"differs by {row['error']:.2g}; MACs over predicted {row['flops_over_predicted']}"
    if row["verdict"] == "blind":
        return f"masking changes the output by {row['effect']:.2g} only"
    stays = row.get("untouched", {})
    found = sorted(
        ((r, n) for r, n in stays.items() if not OUTPUT.fullmatch(r)), key=lambda item: -item[1]
    )
    found = found or list(stays.items())
    return "; ".join(f"{reason} ({count} filters)" for reason, count in found[:2])


def _stays(ours: Iterable[Row]) -> str:
    """The reasons for which filters stay, over all networks."""
    networks: Counter[str] = Counter()
    filters: Counter[str] = Counter()
    for row in ours:
        found: Counter[str] = Counter()
        for reason, count in row.get("untouched", {}).items():
            found[re.sub(r" in \S+( model)?$", "", reason)] += count
        networks.update(found.keys())
        filters.update(found)
    if not networks:
        return ""
    lines = [
        [_cell(reason), str(count), str(filters[reason])]
        for reason, count in networks.most_common(REASONS)
    ]
    title = "### The most frequent reasons for what stays"
    return f"{title}\n\n{_markdown(['reason', 'networks', 'filters'], lines)}"


def _ratio(row: Row) -> float | None:
    if "trace_seconds" not in row or not row.get("build_seconds"):
        return None
    return float(row["trace_seconds"] / row["build_seconds"])


def _median(rows: Iterable[Row], value: Callable[[Row], float | None]) -> str:
    found = [number for row in rows if (number := value(row)) is not None]
    return _number(median(found)) if found else "–"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _source(name: str) -> str:
    return name.partition("/")[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    write(PAGE, content(workers.latest("zoo"), workers.latest("torch_pruning")))


if __name__ == "__main__":
    main()
