"""The ways through a model that are followed: evaluation, training, what other data may take."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lcprune._text import first_line, one_line
from lcprune.errors import ModelError
from lcprune.tracing import _chance as chance
from lcprune.tracing._call_watch import CallWatch
from lcprune.tracing._decisions import Run
from lcprune.tracing._explore import BARREN, Explorer, Extent, patience
from lcprune.tracing._flow import LabelFlow, Mark, Returned
from lcprune.tracing._inputs import Inputs, own, training_forms
from lcprune.tracing._run import forward, forward_on, private_copy
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
    forward in training mode could not be followed, and is empty where it was. ``sure`` is whether
    the other outcomes of what is decided by values could be followed to their ends.
    """

    flow: LabelFlow
    names: dict[str, None] = field(default_factory=dict)
    training_error: str = ""
    sure: bool = True


@dataclass(frozen=True)
class Ran:
    """A run on inputs: what it decided, and whether numbers were drawn outside of PyTorch.

    ``drew`` is whether they were by global generators, ``loose`` by others, or left PyTorch.
    """

    inputs: Inputs
    run: Run[tuple[Mark, int]]
    drew: bool
    loose: bool


class Follower:
    """Runs a model under one flow, in the mode that it is in; ``free`` outputs may shrink."""

    def __init__(self, paths: Paths, model: nn.Module, free: Collection[str]) -> None:
        self.paths = paths
        self._flow = paths.flow
        self._model = model
        self._free = free

    def run(self, inputs: Inputs) -> Ran:
        """Run on inputs; ``ModelError`` where the forward raises."""
        self._flow.loose = False
        before, held = chance.state(), chance.state_of(self._model)
        mark = self._flow.planes.mark
        try:
            returned = run_labelled(self._flow, self._model, inputs, self._free)
            self.paths.names |= dict.fromkeys(output.name for output in returned)
            del returned
        finally:
            self._flow.let_go(mark)
        loose = self._flow.loose or held != chance.state_of(self._model)
        return Ran(inputs, self._flow.decisions.run, before != chance.state(), loose)

    def explore(self, runs: Sequence[Ran]) -> None:
        """Follow what other data, and other draws, may lead to."""
        with chance.generators_put_back(self._model):
            if any(ran.run.met for ran in runs):
                explorer = Explorer(self._flow, self._again, self._misses)
                explorer.follow([(ran.inputs, ran.run) for ran in runs])
                self.paths.sure &= explorer.sure
            for ran in runs:
                if ran.drew or ran.loose:
                    self._draw(ran)

    def _again(self, inputs: Inputs, seed: int = 0) -> None:
        chance.seed(seed)
        with _state_put_back(self._model):
            self.run(inputs)

    def _misses(self) -> bool:
        return bool(unreached(self._flow, self._model))

    def _draw(self, ran: Ran) -> None:
        """Run on with other draws, until several more lead to nothing new."""
        extent = Extent(self._flow)
        for shares in chance.SHARES if ran.drew else ():
            with chance.drawing(shares):
                self._try(ran.inputs)
        extent.grows()
        most = patience(ran.run.operators) if ran.loose else BARREN
        barren = 0
        for seed in range(1, 1 + max(chance.SEEDS, 4 * most)):
            self._try(ran.inputs, seed)
            barren = 0 if extent.grows() else barren + 1
            if barren == most and not self._misses():
                break
        for shares in chance.FINER if ran.drew else ():
            if self._misses():
                with chance.drawing(shares):
                    self._try(ran.inputs)

    def _try(self, inputs: Inputs, seed: int = 0) -> None:
        try:
            self._again(inputs, seed)
        except ModelError:  # what it has joined before is true all the same
            self.paths.sure = False


def follow(
    model: nn.Module,
    examples: Sequence[Inputs],
    training: Sequence[Inputs],
    free: Collection[str] = (),
) -> Paths:
    """Run ``model`` in eval mode on every example, then in training mode, under one flow.

    The first run counts: operators, values, MACs and decisions are those of it; all others only
    join labels and pin outputs. What is decided by values or drawn at random is decided and drawn
    otherwise in further runs. Where attention can lose whole heads only, all is run anew.
    ``training`` are inputs for training mode; without any, each example is given there as often
    as needed (``training_forms``).
    """
    heads: frozenset[str] = frozenset()
    while True:
        paths = Paths(LabelFlow(model, apply_rule, heads))
        follower = Follower(paths, model, free)
        notes = paths.flow.notes
        runs = [follower.run(examples[0])]
        if notes.scaled_by_width <= heads:
            notes.counting = False
            uncounted = dict(notes.uncounted)
            runs += [follower.run(example) for example in examples[1:]]
            follower.explore(runs)
            given: list[tuple[Inputs, ...]] = [(inputs,) for inputs in training]
            size = paths.flow.record.size
            forms = given or [training_forms(example, size) for example in examples]
            with _in_training(model):
                ran = _train(follower, forms)
                follower.explore(ran)
            if _leave_whole(paths, model, one=len(examples) == 1):
                for example in examples:
                    follower.run(example)
                with _in_training(model):
                    _train(follower, [(before.inputs,) for before in ran])
            notes.uncounted.clear()
            notes.uncounted.update(uncounted)
        if notes.scaled_by_width <= heads:
            return paths
        heads |= notes.scaled_by_width


def inputs_for_training(model: nn.Module, inputs: Inputs) -> tuple[Inputs, ...]:
    """What to run a model on in training mode where only ``inputs`` are known, best first.

    How many samples those are depends on how many numbers the operators of a forward give, each
    of which training may have to hold.
    """
    counting = _Counting()
    with chance.generators_put_back(model), suppress(ModelError), counting:
        forward(private_copy(model).eval(), inputs)
    return training_forms(inputs, counting.numbers)


class _Counting(TorchDispatchMode):
    """Counts the elements of what operators give."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.numbers += sum(
                leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)
            )
        return out


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


def _train(follower: Follower, forms: Sequence[tuple[Inputs, ...]]) -> list[Ran]:
    """Run in training mode, on the first of each ``forms`` that runs.

    What a run that fails has joined before it failed may stay, since it is true of a part of the
    forward; what it alone has made is of unknown use, and stays whole.
    """
    paths, flow, runs = follower.paths, follower.paths.flow, list[Ran]()
    for alternatives in forms:
        for inputs in alternatives:
            before = flow.mark()
            try:
                runs.append(follower.run(inputs))
            except ModelError as error:
                if inputs is not alternatives[-1]:
                    flow.reset(before)
                    continue
                cause = error.__cause__
                paths.training_error = first_line(cause) if cause else one_line(error)
                flow.labels.pin_new(before.labels, "the forward in training mode fails")
            else:
                break
    return runs


@contextmanager
def _in_training(model: nn.Module) -> Iterator[None]:
    """Training mode with random draws of its own; generators and buffers are put back."""
    model.train()
    try:
        with chance.generators_put_back(model), _buffers_put_back(model):
            yield
    finally:
        model.eval()


@contextmanager
def _buffers_put_back(model: nn.Module) -> Iterator[None]:
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                if buffer.shape != value.shape:  # an observer takes its size from what it sees
                    buffer.resize_(value.shape)
                buffer.copy_(value)


@contextmanager
def _state_put_back(model: nn.Module) -> Iterator[None]:
    """What modules put by on their way is put back: attributes, what is in lists, buffers."""
    before = [
        (held, held.copy())
        for module in model.modules()
        for held in (vars(module), *vars(module).values())
        if type(held) in (dict, list)
    ]
    try:
        with _buffers_put_back(model):
            yield
    finally:
        for held, content in before:
            held.clear()
            (held.update if isinstance(held, dict) else held.extend)(content)


def _leave_whole(paths: Paths, model: nn.Module, *, one: bool) -> bool:
    """Keep the channels that other data may take along another way; whether there are any.

    Where a decision depends on data or on a draw and its other outcomes could not be followed, a
    module that was not reached may run on other data, fed and read by the module around it. So
    whatever the nearest module around it that ran has in its hands stays. Where there is ``one``
    example only, so does what a module has in its hands that itself branches by data: it may go
    round a loop once more.
    """
    flow, decisions = paths.flow, paths.flow.decisions
    differs = flow.differs or bool(decisions.open) or not paths.sure
    if not differs and not flow.drawn:
        return False
    for name in _topmost(model, set(unreached(flow, model))):
        around = name.rpartition(".")[0]
        while around and around not in flow.running.entered:
            around = around.rpartition(".")[0]
        if differs or around in flow.drawn:
            reason = f"{name} was not reached, but may be on other data: further examples help"
            flow.held.setdefault(around, reason)
    for name, sites in decisions.decided.items() if one else ():
        if sites & decisions.open:
            flow.held.setdefault(
                name,
                f"the control flow of {name or 'the model'} depends on data: further examples help",
            )
    return bool(flow.held)


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
