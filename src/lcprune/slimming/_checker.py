"""Many plans of one model, each checked against the masked reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from lcprune.errors import ModelError
from lcprune.ranking import Plan
from lcprune.slimming._original import (
    DIFFERS,
    MaskedModelError,
    Original,
    SlimmedModelError,
    originals,
)
from lcprune.slimming._slim import slim
from lcprune.tracing import ExampleInput


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
    """Says what is wrong with a model slimmed by a plan; all else is prepared once.

    The comparisons are those of ``verify``, in evaluation and then in training mode. A plan costs
    two cuts and four forwards, two of them with a plane of labels beside every tensor, and one
    backward; a plan whose slimmed model raises, a cut and a part of one forward.
    ``training_error`` says why training mode is left out, from the moment that it is.

    Example:
        fault = Checker(model, example_input).fault(plan)  # none where the plan is right
    """

    def __init__(
        self,
        model: nn.Module,
        example_input: ExampleInput | None = None,
        *,
        example_kwargs: Mapping[str, Any] | None = None,
        training_inputs: ExampleInput | None = None,
    ) -> None:
        self.training_error = ""
        self._model = model
        self._originals = originals(model, example_input, example_kwargs, training_inputs)

    def fault(self, plan: Plan) -> Fault | None:
        """What is wrong with the model slimmed by ``plan``, or none.

        Raises ``ModelError`` where the model itself can't run in evaluation mode, or does not give
        the same output twice.
        """
        evaluation, training = self._originals
        found = self._fault(evaluation, plan)
        if found is not None:
            # Before the plan is blamed: the fault may be the model's own, or its precision's.
            before, doubt = evaluation.precision, evaluation.doubt()
            if doubt:
                raise ModelError(doubt)
            if evaluation.precision != before:
                found = self._fault(evaluation, plan)
        if found is not None or self.training_error:
            return found
        try:
            found = self._fault(training, plan)
        except ModelError as error:
            self.training_error = str(error)
            return None
        if found is not None:
            self.training_error = training.doubt()
        return None if self.training_error else found

    def _fault(self, original: Original, plan: Plan) -> Fault | None:
        try:
            error = original.difference(lambda: slim(self._model, plan), plan)
        except SlimmedModelError as failed:
            return Fault(failed.reason, failed.error)
        except MaskedModelError as failed:
            return Fault(f"the masked original fails{original.mode}", failed.error)
        if original.is_right(error):
            return None
        return Fault(f"{DIFFERS}{original.mode}")
