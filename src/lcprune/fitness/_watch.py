"""What the layers of a network do in a forward pass, and passes that wait at a layer's output."""

from __future__ import annotations

import threading
import weakref
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lcprune.fitness._running import run_on
from lcprune.slimming import copied, named_state
from lcprune.tracing import Inputs

_NORMS = frozenset({
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm", "miopen_batch_norm",
})  # fmt: skip
_SUMS = frozenset({"add", "add_"})
_VIEWS = frozenset({"view", "_unsafe_view"})
_WEIGHT_VIEWS = frozenset({"t", "transpose", "detach", "alias"})
"""How a linear layer reads its weight."""

TRANSPOSED = "a transposed convolution"


@dataclass(frozen=True)
class Convolution:
    """The settings of a convolution, or none (a linear layer has one group)."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True)
class Norm:
    """A BatchNorm in evaluation mode: the names of its tensors; ``alone`` where it runs once."""

    weight: str
    bias: str
    mean: str
    var: str
    eps: float
    alone: bool = False


Layer = tuple[str, str, Convolution | None]
"""The names of weight and bias (if any), and the settings of a convolution."""


@dataclass(frozen=True)
class Call:
    """A use of a layer: the operator ``position``, and what its output becomes at ``end``.

    Up to there it is changed by ``norm`` (if any) and added to what is known by then, and nothing
    else reads it. ``bias`` names the layer's own, if it has one, and ``settings`` is none for a
    linear layer, whose channels are in the last dimension and not in the second.
    """

    weight: str
    bias: str
    settings: Convolution | None
    position: int
    end: int
    norm: Norm | None = None


@dataclass
class _Op:
    name: str
    reads: tuple[int, ...]
    first: int
    writes: tuple[int, ...]
    overwritten: tuple[int, ...]
    shape: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    parameters: tuple[str, ...]
    transposed: bool
    layer: Layer | None = None
    norm: Norm | None = None


@dataclass(frozen=True)
class Record:
    """The operators of a pass by name, its calls of layers, and what can't be refitted and why.

    ``read`` names all parameters that an operator read. ``alive`` has, for each operator, the
    bytes of what is computed and still held after it.
    """

    names: tuple[str, ...]
    calls: tuple[Call, ...]
    refused: Mapping[str, str]
    read: frozenset[str]
    alive: tuple[int, ...]


class _Recorder(TorchDispatchMode):
    """Notes every operator of one pass of a network in evaluation mode."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: list[_Op] = []
        self.alive: list[int] = []
        self._held: list[tuple[weakref.ref[Tensor], int, int]] = []
        names: dict[int, list[str]] = defaultdict(list)
        self._state: dict[str, Tensor] = {}
        for name, tensor in named_state(model):
            names[_storage(tensor)].append(name)
            self._state[name] = tensor
        self.tied = {name for several in names.values() if len(several) > 1 for name in several}
        self.parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        self._names = {storage: several[0] for storage, several in names.items()}
        self._values: dict[int, int] = {}
        self._count = 0

    def value_of(self, tensor: Tensor) -> int:
        """The number of what is in the storage of a tensor now: each write makes another."""
        storage = _storage(tensor)
        if storage not in self._values:
            self._values[storage] = self._new()
        return self._values[storage]

    def _new(self) -> int:
        self._count += 1
        return self._count

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, dict(given))) if isinstance(leaf, Tensor)]
        reads = tuple(self.value_of(tensor) for tensor in inputs)
        storages = {_storage(tensor) for tensor in inputs}
        result = func(*args, **given)
        written = {
            _storage(value)
            for argument, value in zip(func._schema.arguments, args, strict=False)
            if isinstance(value, Tensor) and argument.is_write
        }
        overwritten = tuple(self._values[storage] for storage in written)
        found = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for storage in written | ({_storage(tensor) for tensor in found} - storages):
            self._values[storage] = self._new()
        name = func.overloadpacket.__name__
        self.ops.append(
            _Op(
                name=name,
                reads=reads,
                first=reads[0] if reads else 0,
                writes=tuple(self.value_of(tensor) for tensor in found),
                overwritten=overwritten,
                shape=tuple(found[0].shape) if found else (),
                shapes=tuple(tuple(tensor.shape) for tensor in inputs),
                parameters=tuple(self._names.get(_storage(tensor), "") for tensor in inputs),
                transposed=name == "convolution" and bool(args[6]),
                layer=self._layer(name, args),
                norm=self._norm(name, args),
            )
        )
        self._account(found)
        return result

    def _account(self, found: list[Tensor]) -> None:
        for tensor in found:
            size = tensor.untyped_storage().nbytes() if tensor.layout == torch.strided else 0
            self._held.append((weakref.ref(tensor), _storage(tensor), size))
        self._held = [entry for entry in self._held if entry[0]() is not None]
        self.alive.append(sum({storage: size for _, storage, size in self._held}.values()))

    def _layer(self, name: str, args: tuple[Any, ...]) -> Layer | None:
        if name == "convolution" and not args[6]:
            weight, bias = args[1], args[2]
            groups, shape = args[8], args[1].shape
            spatial = len(shape) - 2
            stride, padding, dilation = (_each(value, spatial) for value in args[3:6])
            settings = Convolution(stride, padding, dilation, groups)
            return self._named(weight, bias, settings, transposed=False)
        if name == "addmm" and len(args) == 3:
            return self._named(args[2], args[0], None, transposed=True)
        if name == "mm":
            return self._named(args[1], None, None, transposed=True)
        return None

    def _named(
        self, weight: Tensor, bias: Tensor | None, settings: Convolution | None, *, transposed: bool
    ) -> Layer | None:
        """The layer of that weight and bias, where these are parameters as they are."""
        name = self._names.get(_storage(weight), "")
        if name not in self.parameters or not weight.is_floating_point():
            return None
        own = self._state[name]
        own = own.t() if transposed and own.dim() == 2 else own
        if own.shape != weight.shape or own.stride() != weight.stride():
            return None
        if bias is None:
            return name, "", settings
        known = self._names.get(_storage(bias), "")
        whole = known in self.parameters and self._state[known].shape == bias.shape
        return name, known if whole and known not in self.tied else "", settings

    def _norm(self, name: str, args: tuple[Any, ...]) -> Norm | None:
        if name not in _NORMS or (name != "_native_batch_norm_legit_no_training" and args[5]):
            return None
        if any(tensor is None for tensor in args[3:5]):
            return None
        names = ["" if t is None else self._names.get(_storage(t), "") for t in args[1:5]]
        if not all(name or tensor is None for name, tensor in zip(names, args[1:5], strict=True)):
            return None
        weight, bias, mean, var = names
        return Norm(weight, bias, mean, var, args[-1])


def record(model: nn.Module, batch: Inputs) -> Record:
    """What the layers of a network in evaluation mode do with a batch."""
    recorder = _Recorder(model)
    own = batch.mapped(torch.clone)
    with torch.no_grad(), recorder:
        returned = run_on(model, own)
    leaves = [leaf for leaf in tree_leaves(returned) if isinstance(leaf, Tensor)]
    return _Analysis(recorder, [recorder.value_of(leaf) for leaf in leaves]).record()


class _Analysis:
    """Which layers can be refitted, and up to where the output of each is known."""

    def __init__(self, recorder: _Recorder, returned: Sequence[int]) -> None:
        self._ops = recorder.ops
        self._alive = recorder.alive
        self._readers: dict[int, list[int]] = defaultdict(list)
        for position, op in enumerate(self._ops):
            for value in dict.fromkeys(op.reads):
                self._readers[value].append(position)
        for value in returned:
            self._readers[value].append(len(self._ops))
        self._overwritten = {
            value: position for position, op in enumerate(self._ops) for value in op.overwritten
        }
        uses = Counter(name for op in self._ops for name in set(op.parameters) if name)
        self._once = {name for name, count in uses.items() if count == 1} - recorder.tied
        self._refused: dict[str, str] = {}
        self._layers: dict[int, Layer] = {}
        self._find(recorder)

    def _find(self, recorder: _Recorder) -> None:
        for position, op in enumerate(self._ops):
            if op.layer is not None:
                self._layers[position] = op.layer
        names = {layer[0] for layer in self._layers.values()}
        for position, op in enumerate(self._ops):
            for name in set(op.parameters) & recorder.parameters:
                layer = self._layers.get(position)
                if op.name in _WEIGHT_VIEWS or (layer is not None and name in layer[:2]):
                    continue
                if op.transposed:
                    self._refused[name] = TRANSPOSED
                elif name in names:
                    self._refused[name] = f"{op.name} reads its weight too"
                elif op.name == "convolution":
                    self._refused[name] = "only a part of its weight is used"
        for name in names & recorder.tied:
            self._refused[name] = "its weight is tied to another layer's"
        biases: dict[str, set[str]] = defaultdict(set)
        for name, bias, _ in self._layers.values():
            biases[name].add(bias)
        for name, several in biases.items():
            if len(several) > 1:
                self._refused[name] = "it is used with several biases"
        self._layers = {p: la for p, la in self._layers.items() if la[0] not in self._refused}

    def record(self) -> Record:
        calls = tuple(self._call(position) for position in self._layers)
        return Record(
            names=tuple(op.name for op in self._ops),
            calls=calls,
            refused=dict(self._refused),
            read=frozenset(name for op in self._ops for name in op.parameters if name),
            alive=tuple(self._alive),
        )

    def _is_view(self, position: int) -> bool:
        return position < len(self._ops) and self._ops[position].name in _VIEWS

    def _call(self, position: int) -> Call:
        name, bias, settings = self._layers[position]
        op = self._ops[position]
        last = min([p for p in self._layers if p > position], default=len(self._ops))
        # What the layer reads has to be there as it was.
        source = op.reads[1] if op.name == "addmm" else op.first
        last = min(last, self._overwritten.get(source, last))
        several = sum(layer[0] == name for layer in self._layers.values()) > 1
        end, shape, value, norm, added = position, op.shape, op.writes[0], None, False
        while True:
            # A view of it that has the same channels is no reader; what reads the view is.
            readers = [r for r in self._readers[value] if not self._is_view(r)]
            if len(readers) != 1 or not position < readers[0] < last:
                break
            following = self._ops[readers[0]]
            same = following.shape == shape
            if settings is None:
                same = following.shape[-1:] == shape[-1:] and prod(following.shape) == prod(shape)
            per_channel = settings is not None or len(shape) == 2
            if following.norm is not None and same and following.first == value:
                if norm is not None or added or not per_channel:
                    break
                norm = following.norm
                names = (norm.weight, norm.bias, norm.mean, norm.var)
                alone = all(name in self._once for name in names if name)
                norm = Norm(*names, norm.eps, alone)
            elif following.name in _SUMS and same and following.reads.count(value) == 1:
                other = [
                    name
                    for name, shape_ in zip(following.parameters, following.shapes, strict=True)
                    if name in self._once and shape_ == shape[-1:]
                ]
                # A linear layer of more dimensions adds its bias afterwards.
                if settings is None and not bias and not added and other:
                    bias = other[0]
                elif several:  # what is added may be of this layer too
                    break
                added = True
            else:
                break
            end, value, shape = readers[0], following.writes[0], following.shape
        return Call(name, bias, settings, position, end, norm)


def _each(values: Sequence[int], count: int) -> tuple[int, ...]:
    return tuple(values) if len(values) == count else tuple(values) * count


def _storage(tensor: Tensor) -> int:
    if tensor.layout != torch.strided:
        return -id(tensor)
    return tensor.untyped_storage().data_ptr() or -id(tensor)


class _Closed(BaseException):
    """Ends a pass from within, whatever code it is in."""


@dataclass
class Halt:
    """Where a pass waits: what the layer read, and what became of its output by now."""

    call: Call
    input: Tensor | None
    result: Tensor


class Pass(TorchDispatchMode):
    """A forward pass in a thread of its own, which goes on only from one halt to the next.

    Example:
        halt = Pass(model, batch, record).to(call)
        ...                                # the result may be changed in place
    """

    def __init__(self, model: nn.Module, batch: Inputs, names: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # With modules of its own: a forward may put by what it saw.
        self._model = copied(model, {id(tensor): tensor for _, tensor in named_state(model)})
        self._batch = batch
        self._names = names
        self._position = -1
        self._input: Tensor | None = None
        self._target: Call | None = None
        self._halt: Halt | None = None
        self._error: BaseException | None = None
        self._closed = self._over = False
        self._go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def to(self, call: Call) -> Halt | None:
        """Run up to the end of a call; none where the pass took another way or is over."""
        self._target, self._halt, self._input = call, None, None
        if not self._over:
            self._go.release()
            self._waits.acquire()
        if self._error is not None:
            raise self._error
        return self._halt

    def close(self) -> None:
        """End the pass where it is."""
        self._closed = True
        self._go.release()
        self._thread.join()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._closed:
                own = self._batch.mapped(torch.clone)  # a model may write into it
                with torch.no_grad(), self:
                    run_on(self._model, own)
        except _Closed:
            pass
        except BaseException as error:  # told where the pass is waited for
            self._error = error
        finally:
            self._halt, self._input, self._over = None, None, True
            self._waits.release()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if self._closed:
            raise _Closed
        self._position += 1
        at, name = self._position, func.overloadpacket.__name__
        if at >= len(self._names) or self._names[at] != name:
            raise _Closed  # data took it another way
        target = self._target
        if target is not None and at == target.position:
            self._input = args[1] if name == "addmm" else args[0]
        result = func(*args, **(kwargs or {}))
        if target is not None and at == target.end:
            first = result if isinstance(result, Tensor) else result[0]
            self._halt = Halt(target, self._input, first)
            self._waits.release()
            self._go.acquire()
            if self._closed:
                raise _Closed
        return result
