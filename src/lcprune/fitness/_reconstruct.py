"""Refitting what is left of a network to what the whole one computes, without training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from lcprune._checks import integer, is_iterable, module, refused
from lcprune.errors import InputError
from lcprune.fitness._least_squares import Change, Moments, Rows, least, ungrouped
from lcprune.fitness._recalibrate import recalibrate
from lcprune.fitness._running import Batch, run_on, seeded
from lcprune.fitness._watch import TRANSPOSED, Call, Halt, Pass, record
from lcprune.ranking import Plan
from lcprune.slimming import check_fit, named_state
from lcprune.tracing import Inputs, as_examples, outputs, private_copy

PIECE = 50
"""The most samples that are run at once."""

NUMBERS = 2**20
"""The most numbers that the inputs run at once may hold, if they are several samples."""

HELD = 5
"""One in so many of these pieces is held out: the second, the seventh, …"""

MEMORY = 2**30
"""The bytes of activations that are held at a time, if two pieces don't take more."""

AHEAD = 10
"""How many layers ahead memory is planned for."""

ROWS = (40_000, 80)
"""Positions that a layer is fitted on: at least so many, and so many for each unknown."""

UNKNOWNS = 8192
"""The most inputs of a layer, times its kernel, that a regression has."""

UNREACHED = "the images don't reach it"
COMPUTED = "its weight is computed from others"


@dataclass(frozen=True)
class Refit:
    """A layer, by the name of its weight, and how far its output is from the original's.

    Both errors are squared differences on images that the layer was not fitted on, as a share of
    the target's variance. ``ridge`` is none where no refit lowered the error, and none was taken.
    """

    layer: str
    before: float
    after: float
    ridge: float | None = None


@dataclass(frozen=True)
class Reconstruction:
    """What became of each layer in order, and which that lost inputs were left alone, and why.

    ``before`` and ``after`` are the errors of the network's own outputs on the images held out, as
    a share of their variance; none where it has other outputs than the original.
    """

    layers: tuple[Refit, ...]
    left_alone: Mapping[str, str] = field(default_factory=dict)
    before: float | None = None
    after: float | None = None


def reconstruct(
    model: nn.Module, small: nn.Module, plan: Plan, batches: Iterable[Batch], *, seed: int = 0
) -> Reconstruction:
    """Refit the layers of ``small``, which is ``model`` cut by ``plan``, in place, untrained.

    Every convolution and linear layer in turn gets the weights that bring it closest, by least
    squares, to the kept outputs of the same layer in ``model``, while it reads what the layers
    before it, refitted already, give. Where its output is added to what is known by then (the
    shortcut of a residual block), the sum is the target, so that it makes up for the error of
    both. BatchNorm is looked through. A ridge holds the weights near those of the cut; its share
    is that with the least error on one fifth of the images, on which no layer is fitted, and a
    refit that does not lower that error is not taken, and none is where the network's outputs on
    them end up no nearer. At last the statistics of BatchNorm are
    estimated anew and its affine numbers follow, so that the outputs stay.

    A batch is what ``recalibrate`` takes; a thousand samples without labels are enough. Both
    networks run in evaluation mode, and each sample once, if no weight is used twice. Activations
    held at a time are about ``MEMORY`` bytes: of large ones fewer images are seen. Transposed
    convolutions, tied and computed weights are left alone.

    ``InputError`` where ``small`` is not that cut, there are less than two samples, or they hold
    NaN; ``ModelError`` where a network can't be run on them. Then ``small`` is as it was.
    Sources: He, Zhang, Sun, "Channel pruning", ICCV 2017, eq. 5 and section 3.2 (residual sums);
    Luo, Wu, Lin, "ThiNet", ICCV 2017, eq. 7; Jiang et al., "Efficient DNN neuron pruning by
    minimizing layer-wise nonlinear reconstruction error", IJCAI 2018.
    """
    check_fit(model, plan)
    integer("seed", seed, least=0)
    _check_cut(model, module("small", small), plan)
    pieces = _pieces(_checked(batches))
    original, working = private_copy(model).eval(), private_copy(small).eval()
    held = pieces[1::HELD]
    with seeded(seed), torch.no_grad():
        before = _output_error(original, working, held)
        report = _Refitting(original, working, plan, pieces, seed).go_through()
        after = _output_error(original, working, held)
        if before is not None and after is not None and not after < before:
            layers = tuple(
                Refit(refit.layer, refit.before, refit.before) for refit in report.layers
            )
            return Reconstruction(layers, report.left_alone, before, before)
        if any(refit.ridge is not None for refit in report.layers):
            _restate(working, pieces)
            for (_, own), (_, new) in zip(named_state(small), named_state(working), strict=True):
                own.copy_(new)
    return replace(report, before=before, after=after)


def _output_error(original: nn.Module, small: nn.Module, pieces: Sequence[Inputs]) -> float | None:
    """How far the outputs are apart, as a share of the original's variance over all samples."""
    missing = total = square = 0.0
    count = 0
    for piece in pieces:
        expected, found = (
            [x for x in outputs(run_on(n, piece.mapped(torch.clone))) if x.is_floating_point()]
            for n in (original, small)
        )
        if [x.shape for x in expected] != [x.shape for x in found]:
            return None
        for target, result in zip(expected, found, strict=True):
            target = target.double()
            missing += float((target - result).square().sum())
            total += float(target.sum())
            square += float(target.square().sum())
            count += target.numel()
    spread = square - total**2 / count if count else 0.0
    return missing / spread if spread > 0 else None


def _check_cut(model: nn.Module, small: nn.Module, plan: Plan) -> None:
    state = dict(named_state(model))
    shapes = {id(tensor): list(tensor.shape) for tensor in state.values()}
    for (name, dim), indices in plan.kept.items():
        shapes[id(state[name])][dim] = len(indices)
    expected = {name: shapes[id(tensor)] for name, tensor in state.items()}
    found = {name: list(tensor.shape) for name, tensor in named_state(small)}
    for name in {**expected, **found}:
        if expected.get(name) != found.get(name):
            raise InputError(
                f"small is not the model cut by the plan: its {name} has shape "
                f"{found.get(name)}, expected {expected.get(name)}"
            )


def _checked(batches: Iterable[Batch]) -> list[Inputs]:
    if not is_iterable(batches):
        raise refused("batches", batches, "batches of the model's inputs, such as [images]")
    held = [as_examples(batch, name=f"batch {n}")[0] for n, batch in enumerate(batches)]
    if not held:
        raise InputError("expected at least one batch to refit layers on")
    for number, batch in enumerate(held):
        if not all(bool(tensor.isfinite().all()) for tensor in batch.tensors()):
            raise InputError(f"batch {number} holds NaN or infinity, expected finite inputs")
    return held


def _pieces(batches: Sequence[Inputs]) -> list[Inputs]:
    """The batches in pieces of few samples, two pieces at least."""
    pieces: list[Inputs] = []
    for batch in batches:
        samples = batch.batch
        if not samples:  # a list of images, say
            pieces.append(batch)
            continue
        numbers = sum(tensor.numel() for tensor in batch.tensors())
        size = max(1, min(PIECE, NUMBERS * samples // max(1, numbers)))
        if len(batches) < HELD:
            size = min(size, -(-samples // HELD))
        pieces.extend(_part(batch, samples, at, size) for at in range(0, samples, size))
    if len(pieces) < 2:
        raise InputError("expected two samples or more to refit layers on, got 1")
    return pieces


def _part(batch: Inputs, samples: int, start: int, size: int) -> Inputs:
    def cut(value: Tensor) -> Tensor:
        return value[start : start + size] if value.dim() and len(value) == samples else value

    return batch.mapped(cut)


def _restate(model: nn.Module, batches: Sequence[Inputs]) -> None:
    """Estimate BatchNorm statistics anew, and change no output: affine numbers make up for it."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    before = []
    for norm in norms:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        before.append((norm.running_mean.double().clone(), norm.running_var.double().clone()))
    recalibrate(model, batches)
    for norm, (mean, var) in zip(norms, before, strict=True):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        if norm.weight is None or norm.bias is None:
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(var)
            continue
        scale = norm.weight.double() / (var + norm.eps).sqrt()
        norm.bias.copy_(norm.bias.double() + scale * (norm.running_mean.double() - mean))
        norm.weight.copy_(scale * (norm.running_var.double() + norm.eps).sqrt())


@dataclass
class _Pair:
    """A piece of the images on its way through both networks."""

    number: int
    original: Pass
    small: Pass

    def to(self, call: Call) -> tuple[Halt, Halt] | None:
        """Both at the end of a call, or none where one of them does not get there."""
        whole, part = self.original.to(call), self.small.to(call)
        return None if whole is None or part is None else (whole, part)

    def close(self) -> None:
        self.original.close()
        self.small.close()


class _Refitting:
    """All pieces wait at the end of a layer until it is refitted, and then go on to the next."""

    def __init__(
        self,
        original: nn.Module,
        small: nn.Module,
        plan: Plan,
        pieces: Sequence[Inputs],
        seed: int,
    ) -> None:
        self._original, self._small, self._plan = original, small, plan
        self._pieces, self._seed = pieces, seed
        self._tensors = dict(named_state(small))
        self._pairs: list[_Pair] = []
        own, other = record(small, pieces[0]), record(original, pieces[0])
        self._names = own.names
        pairs = zip(own.names, other.names, strict=False)
        shorter = min(len(own.names), len(other.names))
        common = next((n for n, (a, b) in enumerate(pairs) if a != b), shorter)
        self._bytes = [a + b for a, b in zip(own.alive[:common], other.alive, strict=False)]
        self._why, self._read = dict(own.refused), own.read
        self._layers: dict[str, list[Call]] = defaultdict(list)
        for call in own.calls:
            self._layers[call.weight].append(call)
        for name, calls in list(self._layers.items()):
            unknowns = prod(self._tensors[name].shape[1:])
            if calls[-1].end >= common:
                self._why[name] = "the small network runs other operators than the original"
                del self._layers[name]
            elif unknowns > UNKNOWNS:
                self._why[name] = f"it has {unknowns} inputs, more than {UNKNOWNS}"
                del self._layers[name]

    def go_through(self) -> Reconstruction:
        """Every layer in order of execution."""
        refits = []
        try:
            steps = list(self._layers.items())
            for number, (name, calls) in enumerate(steps):
                ahead = max(self._bytes[c[-1].end] for _, c in steps[number : number + AHEAD])
                self._have(max(2, MEMORY // max(1, ahead)))
                refit = self._refit(number, name, calls)
                if refit is None:
                    self._why[name] = UNREACHED
                else:
                    refits.append(refit)
        finally:
            self._have(0)
        return Reconstruction(tuple(refits), self._left_alone())

    def _left_alone(self) -> dict[str, str]:
        found = dict(self._why)
        for path, part in self._small.named_modules():
            if isinstance(part, nn.modules.conv._ConvNd | nn.Linear):
                for name, _ in part.named_parameters(path):
                    if name not in self._layers:
                        why = COMPUTED if name in self._read else UNREACHED
                        found.setdefault(name, why)
        return {
            name: why
            for name, why in found.items()
            if (name, 0 if why == TRANSPOSED else 1) in self._plan.kept
        }

    def _have(self, count: int) -> None:
        """Have so many pieces on their way, or all."""
        while len(self._pairs) > count:
            self._pairs.pop().close()
        begun = {pair.number for pair in self._pairs}
        for number, piece in enumerate(self._pieces):
            if number not in begun and len(self._pairs) < count:
                passes = [Pass(n, piece, self._names) for n in (self._original, self._small)]
                self._pairs.append(_Pair(number, *passes))

    def _refit(self, number: int, name: str, calls: Sequence[Call]) -> Refit | None:
        """Refit a layer; none where the images don't reach it."""
        layer = _Layer(self._tensors, calls[0])
        begun = len(self._pairs)
        fit, held, halts = self._gather(number, layer, calls)
        if not fit.rows or not held.rows:
            return None

        def error(sums: Moments, change: Change | None = None) -> float:
            left = float((sums.left(change) * layer.scale.square().reshape(sums.r.shape)).sum())
            spread = float(sums.spread.sum())
            return left / spread if spread else float(left > 0)

        before = error(held)
        best = None
        if before > 1e4 * torch.finfo(layer.weight.dtype).eps ** 2:
            best = least(fit, lambda change: error(held, change), intercept=layer.shifts)
        if best is None or not best[0] < before:
            return Refit(name, before, before)
        after, ridge, change = best
        correction = layer.take(change)
        if len(calls) == 1:
            for halt in halts:
                assert halt.input is not None
                halt.result.add_(correction(halt.input).reshape(halt.result.shape))
            return Refit(name, before, after, ridge)
        # What follows the first call was computed with other weights, later inputs among it.
        self._have(0)
        self._have(begun)
        after = error(self._gather(number, layer, calls)[1])
        if not after < before:
            layer.undo()
        self._have(0)
        return Refit(name, before, after, ridge) if after < before else Refit(name, before, before)

    def _gather(
        self, number: int, layer: _Layer, calls: Sequence[Call]
    ) -> tuple[Moments, Moments, list[Halt]]:
        """The sums to fit on and those held out, and where the small networks wait."""
        fit, held = layer.moments(), layer.moments()
        wanted = max(ROWS[0], ROWS[1] * fit.reads) // max(1, len(self._pairs) * len(calls))
        halts: list[Halt] = []
        for pair in list(self._pairs):
            generator = torch.Generator().manual_seed(self._seed + 10**6 * number + pair.number)
            sums = held if pair.number % HELD == 1 else fit
            for call in calls:
                both = pair.to(call)
                if both is None or not self._add(sums, layer, call, *both, wanted, generator):
                    pair.close()
                    self._pairs.remove(pair)
                    break
                halts.append(both[1])
        return fit, held, halts

    def _add(
        self,
        sums: Moments,
        layer: _Layer,
        call: Call,
        whole: Halt,
        part: Halt,
        wanted: int,
        generator: torch.Generator,
    ) -> bool:
        """Add the rows of a call; whether both networks have the same shape there."""
        target, result, read = whole.result, part.result, part.input
        kept = self._plan.kept.get((call.weight, 0))
        if kept is not None:
            channel = 1 if call.settings else target.dim() - 1
            target = target.index_select(channel, torch.tensor(kept, device=target.device))
        if target.shape != result.shape or read is None:
            return False
        rows = Rows(call.settings, tuple(layer.weight.shape[2:]), result.shape, wanted, generator)
        to_be = rows.of_output(target).double()
        missing = (to_be - rows.of_output(result)) * layer.unscaled.reshape(len(to_be), 1, -1)
        sums.add(rows.of_input(read), missing, to_be)
        return True


class _Layer:
    """A layer of the small network, and the BatchNorm that its output goes through, if any.

    That multiplies by ``scale`` [O]; ``unscaled`` divides by it, where it is not next to nothing.
    ``shifts`` says whether there is a number to add to each output.
    """

    def __init__(self, tensors: Mapping[str, Tensor], call: Call) -> None:
        self.weight = tensors[call.weight]
        self._settings = call.settings
        self._groups = call.settings.groups if call.settings else 1
        self._shift = tensors.get(call.bias)
        self.scale = torch.ones(len(self.weight), dtype=torch.float64, device=self.weight.device)
        self._of_norm = self._shift is None
        if call.norm is not None:
            gain, var = tensors.get(call.norm.weight), tensors[call.norm.var]
            self.scale = (var.double() + call.norm.eps).rsqrt()
            if gain is not None:
                self.scale = self.scale * gain.double()
            if self._of_norm and call.norm.alone:
                self._shift = tensors.get(call.norm.bias)
        size = self.scale.abs()
        there = size > 1e-6 * size.max()
        self.unscaled = torch.where(there, 1 / torch.where(there, self.scale, 1.0), 0.0)
        self.shifts = self._shift is not None
        self._before: tuple[Tensor, Tensor | None] = (self.weight, self._shift)

    def moments(self) -> Moments:
        """Sums over no rows yet."""
        outputs = len(self.weight) // self._groups
        return Moments(self._groups, prod(self.weight.shape[1:]), outputs, self.weight.device)

    def take(self, change: Change) -> Callable[[Tensor], Tensor]:
        """Change the layer; returns what that adds to its result, from what it reads."""
        shift = self._shift
        self._before = self.weight.clone(), None if shift is None else shift.clone()
        scale = self.scale.reshape(-1, *[1] * (self.weight.dim() - 1))
        self.weight.add_(ungrouped(change.weight, self.weight.shape))
        weight = (scale * (self.weight.double() - self._before[0].double())).to(self.weight)
        bias = self.scale * change.bias.flatten()
        if shift is not None:
            shift.add_(bias if self._of_norm else change.bias.flatten())
        added, settings = bias.to(self.weight), self._settings

        def correction(x: Tensor) -> Tensor:
            if settings is None:
                return functional.linear(x, weight, added)
            where = (settings.stride, settings.padding, settings.dilation)
            none = [0] * len(settings.stride)
            return torch.convolution(x, weight, added, *where, False, none, settings.groups)

        return correction

    def undo(self) -> None:
        """Take the change back."""
        self.weight.copy_(self._before[0])
        if self._shift is not None and self._before[1] is not None:
            self._shift.copy_(self._before[1])
