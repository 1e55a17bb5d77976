"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lcprune.cli._config import PruneConfig


def default(key: str) -> str:
    """What an option is when neither the command line nor a file says anything."""
    value = getattr(PruneConfig(), key)
    return "of the data set" if value is None else str(value)


Out = Annotated[Path, typer.Option("--out", help="Directory of the run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the run in the directory.")]
TrustFactory = Annotated[
    bool, typer.Option("--trust-factory", help="Allow a saved model to run its own Python code.")
]

Only = Annotated[
    list[str] | None,
    typer.Option(help="Prune no other modules than those of that name (a glob); may be repeated."),
]
Skip = Annotated[
    list[str] | None,
    typer.Option(help="Prune no filter of modules of that name (a glob); may be repeated."),
]
SkipTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--skip-type",
        help="Prune no filter of modules of that class, such as Linear; may be repeated.",
    ),
]
MinKeep = Annotated[
    float | None,
    typer.Option(
        help="Share of its channels that each family keeps.", show_default=default("min_keep")
    ),
]
RoundTo = Annotated[
    int | None,
    typer.Option(
        help="Families keep a multiple of this many channels, or all of them.",
        show_default=default("round_to"),
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(help="Show what the filters of modules of that name (a glob) go with."),
]
