"""The commands and their options: what was typed becomes a command and its values.

All of it comes from the fields of the options; nothing here or below imports PyTorch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter

from lcprune.cli._signals import PipeClosedError
from lcprune.errors import InputError
from lcprune.runs import (
    Concern,
    DemoOptions,
    EvaluateOptions,
    ExportOptions,
    GlobalOptions,
    InspectOptions,
    MeasureOptions,
    Option,
    PruneOptions,
    RunOptions,
    TrainOptions,
    options_of,
)


@dataclass(frozen=True)
class Command:
    """A command: what it does, in a line, and the classes of its options."""

    name: str
    help: str
    kinds: tuple[type[Concern], ...]

    @property
    def options(self) -> dict[str, Option]:
        """All of its options by key, in the order of the help: by group."""
        found = {
            key: one
            for kind in (*self.kinds, GlobalOptions)
            for key, one in options_of(kind).items()
        }
        titles = list(dict.fromkeys(one.title for one in found.values()))
        return dict(sorted(found.items(), key=lambda item: titles.index(item[1].title)))


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "demo",
            "The whole job on scikit-learn's digits: train, prune to 30 % of the MACs, fine-tune.",
            (DemoOptions,),
        ),
        Command(
            "prune",
            "Prune MODEL to a budget, fine-tune it and save it to a directory.",
            (RunOptions, PruneOptions),
        ),
        Command(
            "train",
            "Train MODEL, from random or given weights, and save it to a directory.",
            (RunOptions, TrainOptions),
        ),
        Command(
            "inspect",
            "Show a model's channel groups, their costs, and what can't be pruned and why.",
            (InspectOptions,),
        ),
        Command(
            "measure",
            "Time MODEL's operators on an inference engine: a table for budgets in milliseconds.",
            (MeasureOptions,),
        ),
        Command(
            "evaluate",
            "Accuracy on the test split and cost of a saved result.",
            (EvaluateOptions,),
        ),
        Command(
            "export",
            "Write a saved result as a file for an inference engine, checked against PyTorch.",
            (ExportOptions,),
        ),
    )
}


@dataclass(frozen=True)
class Asked:
    """A command with the values that were typed for it, and those only."""

    command: Command
    values: Mapping[str, Any]

    def of(self, kind: type[Concern]) -> dict[str, Any]:
        """The values of one class of its options."""
        known = options_of(kind)
        return {key: value for key, value in self.values.items() if key in known}


def parse(arguments: Sequence[str]) -> Asked | None:
    """What a command line asks for; none where that was help, which is printed.

    ``InputError`` where it can't be understood, or a value is of the wrong type or out of range.
    """
    app = App(
        name="lcprune",
        help="Shrink a convolutional network to a resource budget with layer-compensated pruning. "
        "With --debug any command shows where in the code an error came from.",
        help_format="plaintext",
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for command in COMMANDS.values():
        app.command(_function(command), name=command.name, help=command.help)
    try:
        asked: Asked | None = app(list(arguments))
    except CycloptsError as error:
        raise InputError(str(error)) from error
    except SystemExit as error:  # how rich ends where nobody reads what it prints
        raise PipeClosedError from error
    return asked


def _function(command: Command) -> Callable[..., Asked]:
    """A function with a parameter for each option, that gives what was typed."""
    options = command.options
    titles = dict.fromkeys(one.title for one in options.values())
    groups = {title: Group.create_ordered(title) for title in titles}
    signature = inspect.Signature(
        sorted(
            (_parameter(one, groups[one.title]) for one in options.values()),
            key=lambda parameter: parameter.kind,
        )
    )

    def asked(*positional: Any, **named: Any) -> Asked:
        typed = signature.bind(*positional, **named).arguments
        values = {key: value for key, value in typed.items() if value is not None}
        return Asked(command, {key: _value(options[key], text) for key, text in values.items()})

    asked.__signature__ = signature  # type: ignore[attr-defined]
    return asked


def _parameter(one: Option, group: Group) -> inspect.Parameter:
    """The parameter of an option: text that the option itself turns into a value."""
    kind: Any = list[str] if tuple in one.types else bool if bool in one.types else str
    names = one.names
    details = Parameter(
        name=names[:1] or None,
        negative=names[1:] or "",
        group=group,
        help=f"{one.details.help}{_notes(one)}",
        metavar=_metavar(one),
        show_default=False,
        allow_repeating=True,
    )
    position = inspect.Parameter.KEYWORD_ONLY if names else inspect.Parameter.POSITIONAL_ONLY
    return inspect.Parameter(
        one.key, position, default=None, annotation=Annotated[kind | None, details]
    )


def _value(one: Option, typed: Any) -> Any:
    return one.parse(typed) if isinstance(typed, str) else one.check(typed)


def _metavar(one: Option) -> str:
    words = {int: "N", float: "X", Path: "PATH"}
    own = one.details.metavar or "|".join(one.details.choices)
    return own or next((words[kind] for kind in words if kind in one.types), "TEXT")


def _notes(one: Option) -> str:
    """What is in brackets: the default and the range."""
    notes = ["required"] if one.required else []
    notes += [f"default: {one.shown_default}"] if one.shown_default else []
    notes += [one.details.range] if one.details.range and not one.details.choices else []
    return f" [{'; '.join(notes)}]" if notes else ""
