"""The oracle: a slimmed model equals the original with masked contractions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lcprune._checks import instance
from lcprune.errors import ModelError, VerificationError
from lcprune.ranking import Plan
from lcprune.slimming._fit import check_fit
from lcprune.slimming._original import TOLERANCE, Original, SlimmedModelError, originals
from lcprune.tracing import ExampleInput, private_copy

VISIBLE = 1e-3
"""The least effect of a removal that a comparison of outputs can be trusted with."""


@dataclass(frozen=True)
class Difference:
    """How far a slimmed model is from the masked original, in evaluation and in training mode.

    Each difference is relative, with the precision that it was measured in. ``training`` is none
    where training mode can't be checked, and ``training_error`` says why.
    """

    evaluation: float
    precision: torch.dtype
    training: float | None = None
    training_precision: torch.dtype = torch.float64
    training_error: str = ""

    @property
    def error(self) -> float:
        """The larger of both differences."""
        return max(self.evaluation, self.training or 0.0)

    @property
    def training_checked(self) -> bool:
        """Whether training mode was compared as well."""
        return self.training is not None

    def judged(self) -> float:
        """The error; ``VerificationError`` where one of both is above its tolerance."""
        for error, precision, mode in (
            (self.evaluation, self.precision, ""),
            (self.training or 0.0, self.training_precision, " in training mode"),
        ):
            if not error <= TOLERANCE[precision]:
                raise VerificationError(
                    f"the slimmed model differs from the masked original by {error:.2g}{mode} "
                    f"(at most {TOLERANCE[precision]:g} in {str(precision).removeprefix('torch.')})"
                )
        return self.error


def verify(
    model: nn.Module,
    small: nn.Module,
    plan: Plan,
    example_input: ExampleInput | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    training_inputs: ExampleInput | None = None,
) -> float:
    """The largest relative difference between ``small`` and the masked ``model``.

    The reference is ``model`` in which the elements of every removed channel are multiplied by 0
    at the input of every contraction, producers untouched; statistics across channels are taken
    over the kept ones. It is compared in evaluation mode, on the first sample of each example,
    and in training mode, with the statistics of a batch: on ``training_inputs``, or on each
    sample and the same with noise. There the slimmed model must also run backward, and its
    gradients be finite wherever those of ``model`` are. A model whose own forward fails in
    training mode is compared in evaluation alone (``difference`` says so).

    Both run on copies in float64 (casts to less within a model are left out), or in float32 where
    the model can't, with the same random draws; a draw that has the shape of pruned channels gives
    its expectation on both sides, so that dropout passes its input on. Differences are relative to
    the largest reference value of each output tensor.

    Raises ``VerificationError`` above 1e-9 (float64) or 1e-4 (float32), or where ``small`` can't
    run, and ``ModelError`` where ``model`` can't in evaluation mode.
    """
    return difference(
        model,
        small,
        plan,
        example_input,
        example_kwargs=example_kwargs,
        training_inputs=training_inputs,
    ).judged()


def difference(
    model: nn.Module,
    small: nn.Module,
    plan: Plan,
    example_input: ExampleInput | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    training_inputs: ExampleInput | None = None,
) -> Difference:
    """The differences that ``verify`` judges, and the precisions that they were measured in.

    Arguments and errors are those of ``verify``, but that no difference is too large.
    """
    instance("small", small, nn.Module, "the torch.nn.Module that lcprune.slim gives")
    check_fit(model, plan)
    evaluation, training = originals(model, example_input, example_kwargs, training_inputs)

    def make() -> nn.Module:
        return private_copy(small)

    seen = evaluation.difference(make, plan)
    trained, why = _in_training(training, make, plan)
    return Difference(seen, evaluation.precision, trained, training.precision, why)


def _in_training(original: Original, make: Any, plan: Plan) -> tuple[float | None, str]:
    """The difference in training mode, or why it says nothing."""
    try:
        error = original.difference(make, plan)
    except ModelError as failed:
        why = original.doubt()
        if not why:
            raise VerificationError(str(failed)) from failed
        return None, why
    except SlimmedModelError:
        why = original.doubt()
        if not why:
            raise
        return None, why
    why = "" if original.is_right(error) else original.doubt()
    return (None, why) if why else (error, "")


def effect(
    model: nn.Module,
    plan: Plan,
    example_input: ExampleInput | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    training_inputs: ExampleInput | None = None,
) -> float:
    """How far the removal of a plan's channels moves the outputs, relative to the largest.

    The smaller effect of evaluation and training mode. ``verify`` says little about channels whose
    removal moves next to nothing: a network that answers the same to everything passes with any
    cut. Arguments and errors are those of ``verify``.
    """
    check_fit(model, plan)
    evaluation, training = originals(model, example_input, example_kwargs, training_inputs)
    seen = evaluation.effect(plan)
    try:
        return min(seen, training.effect(plan))
    except (ModelError, SlimmedModelError):  # no output, or others, whenever it runs
        return seen
