"""The ways through a model that are followed: evaluation, training, what other data may take."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from lcprune.errors import ModelError
from lcprune.tracing._call_watch import CallWatch
from lcprune.tracing._flow import LabelFlow, Returned
from lcprune.tracing._inputs import Inputs, own, training_forms
from lcprune.tracing._run import first_line, forward_on
from lcprune.tracing._sizes import sized_attributes
from lcprune.tracing._tree import named_tensors
from lcprune.tracing.rules import apply_rule


def run_labelled(
    flow: LabelFlow, model: nn.Module, inputs: Inputs, free: Collection[str] = ()
) -> list[Returned]:
    """Run a model under a flow, pin what it returns, and return that, by name and with planes.

    ``free`` are the names of outputs that may shrink.
    """
    inputs = own(inputs)
    flow.begin(model, inputs.tensors())
    sized = sized_attributes(model, flow.notes)
    with torch.no_grad(), flow.watching(model), sized, CallWatch(flow), flow:
        found = named_tensors(forward_on(model, inputs))
    if not found:
        raise ModelError("the model returns no tensor; expected at least one as its output")
    result = [Returned(name, tensor, flow.planes.of(tensor)) for name, tensor in found]
    flow.end(result, free, " in training mode" if model.training else "")
    return result


@dataclass
class Paths:
    """What following a model has led to: the labels, and what could not be followed.

    ``names`` are those of all outputs that were met; ``training_error`` says in one line why the
    forward in training mode could not be followed, and is empty where it was.
    """

    flow: LabelFlow
    names: dict[str, None] = field(default_factory=dict)
    training_error: str = ""


def follow(
    model: nn.Module,
    examples: Sequence[Inputs],
    training: Sequence[Inputs],
    free: Collection[str] = (),
) -> Paths:
    """Run ``model`` in eval mode on every example, then in training mode, under one flow.

    The first run counts: operators, values, MACs and decisions are those of it; all others only
    join labels and pin outputs. Where attention can lose whole heads only, all is run anew.
    ``training`` are inputs for training mode; without any, each example is given there as often
    as needed (``training_forms``).
    """
    heads: frozenset[str] = frozenset()
    while True:
        paths = Paths(LabelFlow(model, apply_rule, heads))
        notes = paths.flow.notes
        _evaluate(paths, model, examples[:1], free)
        if notes.scaled_by_width <= heads:
            notes.counting = False
            uncounted = dict(notes.uncounted)
            _evaluate(paths, model, examples[1:], free)
            given: list[tuple[Inputs, ...]] = [(inputs,) for inputs in training]
            forms = given or [training_forms(example) for example in examples]
            forms = _train(paths, model, forms, free)
            _leave_whole(paths, model, examples, forms, free)
            notes.uncounted.clear()
            notes.uncounted.update(uncounted)
        if notes.scaled_by_width <= heads:
            return paths
        heads |= notes.scaled_by_width


def unreached(flow: LabelFlow, model: nn.Module) -> list[str]:
    """Modules that neither ran nor had a parameter read by anybody else."""
    return [
        name
        for name, module in model.named_modules()
        if name and name not in flow.running.entered and _unread(flow, module)
    ]


def _unread(flow: LabelFlow, module: nn.Module) -> bool:
    places = {p.untyped_storage().data_ptr() for p in module.parameters(recurse=False)}
    return bool(places) and not places & flow.read


def _evaluate(
    paths: Paths, model: nn.Module, examples: Sequence[Inputs], free: Collection[str]
) -> None:
    for inputs in examples:
        returned = run_labelled(paths.flow, model, inputs, free)
        paths.names |= dict.fromkeys(output.name for output in returned)


def _train(
    paths: Paths,
    model: nn.Module,
    forms: Sequence[tuple[Inputs, ...]],
    free: Collection[str],
) -> list[tuple[Inputs, ...]]:
    """Run in training mode, on the first of each ``forms`` that runs; those, for another time.

    What a run that fails has joined before it failed may stay, since it is true of a part of the
    forward; what it alone has made is of unknown use, and stays whole.
    """
    flow, ran = paths.flow, list[tuple[Inputs, ...]]()
    with _in_training(model):
        for alternatives in forms:
            for inputs in alternatives:
                before = flow.mark()
                try:
                    returned = run_labelled(flow, model, inputs, free)
                except ModelError as error:
                    if inputs is not alternatives[-1]:
                        flow.reset(before)
                        continue
                    cause = error.__cause__
                    paths.training_error = first_line(cause) if cause else str(error)
                    flow.labels.pin_new(before.labels, "the forward in training mode fails")
                else:
                    paths.names |= dict.fromkeys(output.name for output in returned)
                    ran.append((inputs,))
                    break
    return ran


@contextmanager
def _in_training(model: nn.Module) -> Iterator[None]:
    """Training mode with random draws of its own; generators and buffers are put back."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    model.train()
    try:
        with torch.random.fork_rng(devices=sorted(d or 0 for d in devices)):
            torch.default_generator.manual_seed(0)
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002
            yield
    finally:
        model.eval()
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002
        with torch.no_grad():
            for buffer, value in buffers:
                if buffer.shape != value.shape:  # an observer takes its size from what it sees
                    buffer.resize_(value.shape)
                buffer.copy_(value)


def _leave_whole(
    paths: Paths,
    model: nn.Module,
    examples: Sequence[Inputs],
    forms: Sequence[tuple[Inputs, ...]],
    free: Collection[str],
) -> None:
    """Keep the channels that other data may take along another way.

    Where a decision depends on data or on a draw, a module that was not reached may run on other
    data, fed and read by the module around it. So whatever the nearest module around it that ran
    has in its hands stays. Where there is one example only, so does what a module has in its hands
    that itself branches by data: it may go round a loop once more.
    """
    flow = paths.flow
    if not flow.differs and not flow.drawn:
        return
    for name in _topmost(model, set(unreached(flow, model))):
        around = name.rpartition(".")[0]
        while around and around not in flow.running.entered:
            around = around.rpartition(".")[0]
        if flow.differs or around in flow.drawn:
            reason = f"{name} was not reached, but may be on other data: further examples help"
            flow.held.setdefault(around, reason)
    if len(examples) == 1:
        for name in flow.decided:
            flow.held.setdefault(
                name,
                f"the control flow of {name or 'the model'} depends on data: further examples help",
            )
    if flow.held:
        _evaluate(paths, model, examples, free)
        _train(paths, model, forms, free)


def _topmost(model: nn.Module, missed: set[str]) -> list[str]:
    """The outermost modules in which nothing that has parameters was reached."""
    own = {n.rpartition(".")[0] for n, _ in model.named_parameters(remove_duplicate=False)}
    reached = {
        name[: end if end >= 0 else len(name)]
        for name in own - missed
        for end in [-1, *(i for i, c in enumerate(name) if c == ".")]
    } | {""}
    found: dict[str, None] = {}
    for name in sorted(missed):
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            outer = ".".join(parts[:count])
            if outer not in reached:
                found[outer] = None
                break
    return list(found)
