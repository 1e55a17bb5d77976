"""Many plans of one model, each checked against the masked reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from lcprune.errors import LcpruneError, ModelError, VerificationError
from lcprune.ranking import Plan
from lcprune.slimming._slim import slim
from lcprune.slimming._verify import (
    TOLERANCE,
    masked_outputs,
    plain_outputs,
    prepared,
    relative_difference,
)
from lcprune.tracing import ExampleInput, private_copy

LONGEST = 160
"""The most characters of an error that a reason quotes."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a slimmed model: ``what`` it does, and the error that says so, if any."""

    what: str
    error: str | None = None

    @property
    def reason(self) -> str:
        """Why the channels whose removal leads to this have to stay."""
        reason = f"{self.what} when these channels go"
        return reason if self.error is None else f"{reason}: {self.error}"


class Checker:
    """Says what is wrong with a model slimmed by a plan; the model and its input are prepared once.

    The comparison is that of ``verify``: in float64, or in float32 where the model can't run in
    float64. A plan costs one cut and two forwards, one of them with a plane of labels beside
    every tensor; a plan whose slimmed model raises, a cut and a part of one forward.

    Example:
        fault = Checker(model, example_input).fault(plan)  # none where the plan is right
    """

    def __init__(self, model: nn.Module, example_input: ExampleInput) -> None:
        self._model = model
        self._example_input = example_input
        self._precision = torch.float64
        self._copied, self._inputs = prepared(model, example_input, self._precision)
        self._trusted = False

    def fault(self, plan: Plan) -> Fault | None:
        """What is wrong with the model slimmed by ``plan``, or none.

        Raises ``ModelError`` where the model itself can't run, or does not give the same output
        twice.
        """
        found = self._fault(plan)
        if found is None or self._trusted:
            return found
        # Before the plan is blamed: the fault may be the model's own, or its precision's.
        before = self._precision
        self._check_whole()
        return found if self._precision == before else self._fault(plan)

    def _fault(self, plan: Plan) -> Fault | None:
        try:
            small = slim(self._model, plan).eval().to(self._precision)
            actual = plain_outputs(small, self._inputs)
        except Exception as error:  # a foreign model may raise anything while it is copied
            return Fault("the slimmed model fails", _first_line(error))
        del small
        try:
            # On a copy: a model may change its own state whenever it runs.
            expected = masked_outputs(private_copy(self._copied), plan, self._inputs)
        except ModelError as error:
            return Fault("the masked original fails", _first_line(error))
        try:
            right = relative_difference(expected, actual) <= TOLERANCE[self._precision]
        except VerificationError:  # other shapes
            right = False
        return None if right else Fault("the slimmed model differs from the masked original")

    def _check_whole(self) -> None:
        """Find the precision in which the whole model is right; ``ModelError`` if in none."""
        whole = Plan(kept={})
        try:
            masked_outputs(private_copy(self._copied), whole, self._inputs)
        except ModelError:
            if self._precision == torch.float32:
                raise
            self._precision = torch.float32
            self._copied, self._inputs = prepared(self._model, self._example_input, self._precision)
            self._check_whole()
            return
        found = self._fault(whole)
        if found is not None and found.error is not None:
            raise ModelError(f"a copy of the model fails with all its channels: {found.error}")
        if found is not None:
            raise ModelError(
                "the model's output differs from that of its copy, or is not a number; expected "
                "finite outputs that are the same whenever the model runs in eval mode"
            )
        self._trusted = True


def _first_line(error: Exception) -> str:
    """The type and first line of an error, or of what it was raised from."""
    if isinstance(error, LcpruneError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = str(error).strip().split("\n")[0].strip()
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
