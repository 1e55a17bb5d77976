"""The table of a sweep."""

from __future__ import annotations

import io

from rich.console import Console

from lcprune.cli._table import sweep_table
from lcprune.runs import Cost, Latency, Scores, SweepPoint, SweepSummary


def point(name: str, macs: int, top1: float, met: bool = True, front: bool = True) -> SweepPoint:
    return SweepPoint(
        directory=name,
        bound="",
        start=(),
        trials=1,
        search_seconds=None,
        loss_search_best=None,
        costs={
            "weights": Cost("B", None, None, 4096, 2048, 0.5, True),
            "macs": Cost("MACs", "", macs, 1000, macs, macs / 1000, met),
        },
        scores={"before": Scores(91.5), "after": Scores(top1)},
        latency=(Latency("pytorch", 1, 2, 2.0, 1.5), Latency("openvino", 1, 1, None, None)),
        on_front=front,
    )


def test_each_run_has_a_row_with_its_marks() -> None:
    points = (
        point("macs-20", 200, 70.25),
        point("macs-50", 500, 88.0, front=False, met=False),
        point("macs-70", 700, 90.0),
    )
    sweep = SweepSummary("net", "digits", 0, "macs", (), "auto", points, "macs-20", {})
    console = Console(width=88, file=io.StringIO())
    console.print(sweep_table(sweep))
    text = console.file.getvalue()
    rows = text[text.index("base") :]
    names = ("base", *(point.directory for point in points))
    starts = [rows.index(name) for name in names]
    ends = [*starts[1:], rows.index("top-1 in %")]
    lines = {n: rows[begin:end] for n, begin, end in zip(names, starts, ends, strict=True)}
    assert all(part in lines["base"] for part in ("91.50", "1.00 k", "4.00 KiB", " 2 ", "–"))
    row = lines["macs-20"]
    assert all(part in row for part in ("70.25", "200", "20%", "50%", "1.5", "75%", "knee"))
    assert "dominated, over its bound" in lines["macs-50"]
    assert not {"knee", "dominated", "over"} & set(lines["macs-70"].split())
    assert text.index("MACs") < text.index("weights") < text.index("pytorch")
    assert "batch 1, 2 threads" in text
