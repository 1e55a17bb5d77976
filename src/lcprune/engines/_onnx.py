"""A few operators in a row as an ONNX model, made in milliseconds: for timing, with any weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from lcprune.engines._units import Node, Operator
from lcprune.errors import ModelError
from lcprune.graph import FloatArray

_OPSET = 20
_IR = 9

_SAME = {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "erf": "Erf", "exp": "Exp",
    "sqrt": "Sqrt", "abs": "Abs", "neg": "Neg", "softplus": "Softplus", "mish": "Mish",
    "hardswish": "HardSwish", "reciprocal": "Reciprocal", "floor": "Floor",
    "sin": "Sin", "cos": "Cos", "log": "Log",
}  # fmt: skip
"""What ONNX has under another name."""
_TWO = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "maximum": "Max", "minimum": "Min"}


class _Writer:
    """An ONNX graph that grows; the tensor at position 3 is called t3."""

    def __init__(self, operator: Operator) -> None:
        import onnx

        self.onnx = onnx
        self.shapes = operator.shapes
        self.nodes: list[Any] = []
        self.states: list[Any] = []

    def shape(self, position: int) -> tuple[int, ...]:
        return self.shapes[position]

    def emit(self, kind: str, reads: Sequence[str], write: str = "", **attributes: Any) -> str:
        write = write or f"between{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(reads), [write], **attributes))
        return write

    def constant(self, values: Any, kind: Any) -> str:
        array = np.asarray(values, dtype=kind)
        name = f"constant{len(self.states)}"
        self.states.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, shape: tuple[int, ...]) -> None:
        tensor = self.onnx.TensorProto(name=name, data_type=1, dims=shape)
        tensor.raw_data = noise(shape).tobytes()
        self.states.append(tensor)


Emit = Callable[[_Writer, Node, list[str], str], object]
_EMIT: dict[str, Emit] = {}


def as_onnx(operator: Operator) -> bytes:
    """The model; ``ModelError`` for an operator that this module has no writing of."""
    writer = _Writer(operator)
    for position in operator.states:
        writer.weight(f"t{position}", operator.shapes[position])
    for node in operator.nodes:
        emit = _EMIT.get(node.kind)
        if emit is None:
            raise ModelError(f"no single {node.kind} can be timed")
        emit(writer, node, [f"t{position}" for position in node.reads], f"t{node.write}")
    info = writer.onnx.helper.make_tensor_value_info
    graph = writer.onnx.helper.make_graph(
        writer.nodes,
        "operator",
        [info(f"t{position}", 1, operator.shapes[position]) for position in operator.inputs],
        [info(f"t{operator.output}", 1, operator.shapes[operator.output])],
        writer.states,
    )
    opset = writer.onnx.helper.make_opsetid("", _OPSET)
    model = writer.onnx.helper.make_model(graph, opset_imports=[opset], ir_version=_IR)
    content: bytes = model.SerializeToString()
    return content


def noise(shape: tuple[int, ...]) -> FloatArray:
    """Float32 values that are no zeros and no denormals, without drawing each time."""
    count = int(np.prod(shape))
    return np.resize(_drawn(), count).reshape(shape)


@cache
def _drawn() -> FloatArray:
    drawn: FloatArray = np.random.default_rng(0).uniform(0.01, 0.1, 2**16 + 1).astype(np.float32)
    return drawn


def _writes(*kinds: str) -> Callable[[Emit], Emit]:
    def register(emit: Emit) -> Emit:
        _EMIT.update(dict.fromkeys(kinds, emit))
        return emit

    return register


@_writes(*_SAME)
def _same(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    writer.emit(_SAME[node.kind], reads, write)


@_writes(*_TWO)
def _two(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    if len(reads) == 1:
        reads = [*reads, writer.constant(float(node.settings.get("other", 1.0)), np.float32)]
    writer.emit(_TWO[node.kind], reads, write)


@_writes("convolution", "_convolution")
def _convolution(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    of = node.settings
    dims = len(writer.shape(node.reads[0])) - 2
    weight = writer.shape(node.reads[1])
    transposed = bool(of.get("transposed"))
    if len(reads) == 2:  # of a folded batch norm, or none: an addition of no weight
        count = weight[1] * of["groups"] if transposed else weight[0]
        bias = f"{write}_bias"
        writer.weight(bias, (count,))
        reads = [*reads, bias]
    attributes: dict[str, Any] = {
        "strides": _each(of["stride"], dims),
        "pads": 2 * _each(of["padding"], dims),
        "dilations": _each(of["dilation"], dims),
        "group": of["groups"],
        "kernel_shape": list(weight[2:]),
    }
    if transposed:
        attributes["output_padding"] = _each(of["output_padding"], dims)
    writer.emit("ConvTranspose" if transposed else "Conv", reads, write, **attributes)


@_writes("addmm")
def _addmm(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    bias, x, weight = reads
    writer.emit("Gemm", [x, weight, bias], write)


@_writes("mm", "bmm", "matmul")
def _matmul(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    writer.emit("MatMul", reads, write)


@_writes("baddbmm")
def _baddbmm(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    writer.emit("Add", [reads[0], writer.emit("MatMul", reads[1:])], write)


@_writes("native_batch_norm", "_native_batch_norm_legit_no_training", "batch_norm")
def _batch_norm(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    shape = writer.shape(node.reads[0])
    while len(reads) < 5:  # one without scale and shift
        name = f"{write}_{len(reads)}"
        writer.weight(name, shape[1:2])
        reads = [reads[0], name, *reads[1:]]
    writer.emit("BatchNormalization", reads, write, epsilon=float(node.settings.get("eps", 1e-5)))


@_writes("hardtanh", "clamp", "relu6", "clamp_min", "clamp_max")
def _clip(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    of = node.settings
    low, high = of.get("min_val", of.get("min")), of.get("max_val", of.get("max"))
    if node.kind == "relu6":
        low, high = 0.0, 6.0
    low = -3e38 if low is None else low
    high = 3e38 if high is None else high
    bounds = [writer.constant(float(bound), np.float32) for bound in (low, high)]
    writer.emit("Clip", [*reads[:1], *bounds], write)


@_writes("silu")
def _silu(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    writer.emit("Mul", [*reads, writer.emit("Sigmoid", reads)], write)


@_writes("gelu")
def _gelu(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    how = str(node.settings.get("approximate", "none"))
    writer.emit("Gelu", reads, write, approximate=how)


@_writes("hardsigmoid")
def _hardsigmoid(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    writer.emit("HardSigmoid", reads, write, alpha=1 / 6, beta=0.5)


@_writes("leaky_relu")
def _leaky_relu(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    slope = float(node.settings.get("negative_slope", 0.01))
    writer.emit("LeakyRelu", reads, write, alpha=slope)


@_writes("elu")
def _elu(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    writer.emit("Elu", reads, write, alpha=float(node.settings.get("alpha", 1.0)))


@_writes("prelu", "_prelu_kernel")
def _prelu(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    shape = writer.shape(node.reads[1])
    if len(shape) == 1:  # PyTorch's runs along the channels, ONNX's along the last dimension
        rest = len(writer.shape(node.reads[0])) - 2
        name = f"{write}_slopes"
        writer.weight(name, (*shape, *[1] * rest))
        reads = [reads[0], name]
    writer.emit("PRelu", reads, write)


@_writes("pow")
def _pow(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    if len(reads) == 1:
        exponent = float(node.settings.get("exponent", 2.0))
        reads = [*reads, writer.constant(exponent, np.float32)]
    writer.emit("Pow", reads, write)


@_writes("rsqrt")
def _rsqrt(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    writer.emit("Reciprocal", [writer.emit("Sqrt", reads)], write)


@_writes("max_pool2d_with_indices", "max_pool2d", "avg_pool2d")
def _pool(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    of = node.settings
    kernel = _each(of["kernel_size"], 2)
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": _each(of.get("stride") or kernel, 2),
        "pads": 2 * _each(of.get("padding") or 0, 2),
        "ceil_mode": int(bool(of.get("ceil_mode"))),
    }
    if node.kind == "avg_pool2d":
        attributes["count_include_pad"] = int(bool(of.get("count_include_pad", True)))
        writer.emit("AveragePool", reads, write, **attributes)
    else:
        attributes["dilations"] = _each(of.get("dilation") or 1, 2)
        writer.emit("MaxPool", reads, write, **attributes)


@_writes("mean", "sum", "amax", "_adaptive_avg_pool2d", "adaptive_avg_pool2d")
def _reduce(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    shape = writer.shape(node.reads[0])
    if "adaptive" in node.kind:
        wanted = writer.shape(node.write)[-2:]
        if wanted == (1, 1):
            writer.emit("GlobalAveragePool", reads, write)
            return
        kernel = [-(-a // b) for a, b in zip(shape[-2:], wanted, strict=True)]
        strides = [max(1, a // b) for a, b in zip(shape[-2:], wanted, strict=True)]
        writer.emit("AveragePool", reads, write, kernel_shape=kernel, strides=strides)
        return
    dims = node.settings.get("dim")
    dims = list(range(len(shape))) if dims is None or dims == () else _listed(dims)
    keep = bool(node.settings.get("keepdim"))
    places = sorted(dim % len(shape) for dim in dims)
    if node.kind == "mean" and keep and len(shape) == 4 and places == [2, 3]:
        writer.emit("GlobalAveragePool", reads, write)  # what exporters and engines make of it
        return
    kind = {"mean": "ReduceMean", "sum": "ReduceSum", "amax": "ReduceMax"}[node.kind]
    writer.emit(kind, [*reads, writer.constant(places, np.int64)], write, keepdims=int(keep))


@_writes("cat")
def _cat(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    writer.emit("Concat", reads, write, axis=int(node.settings.get("dim", 0)))


@_writes("slice", "narrow", "select", "split", "split_with_sizes", "chunk", "unbind")
def _slice(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    """The first of what is cut, as large as the network's."""
    shape, wanted = writer.shape(node.reads[0]), writer.shape(node.write)
    step = max(1, int(node.settings.get("step") or 1))
    dim = int(node.settings.get("dim") or 0) % len(shape)
    cut = node.kind in ("select", "unbind")
    length = 1 if cut else min((wanted[dim] - 1) * step + 1, shape[dim])
    ends = [writer.constant([n], np.int64) for n in (0, length, dim, step)]
    if not cut:
        writer.emit("Slice", [*reads, *ends], write)
        return
    place = writer.constant([dim], np.int64)
    writer.emit("Squeeze", [writer.emit("Slice", [*reads, *ends]), place], write)


@_writes("constant_pad_nd", "pad")
def _pad(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    shape, wanted = writer.shape(node.reads[0]), writer.shape(node.write)
    more = [b - a for a, b in zip(shape, wanted, strict=True)]
    pads = [n // 2 for n in more] + [n - n // 2 for n in more]
    writer.emit("Pad", [*reads, writer.constant(pads, np.int64)], write)


@_writes("permute", "transpose")
def _permute(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    rank = len(writer.shape(node.reads[0]))
    if node.kind == "permute":
        order = [dim % rank for dim in node.settings["dims"]]
    else:
        order = list(range(rank))
        first, second = (int(node.settings[name]) % rank for name in ("dim0", "dim1"))
        order[first], order[second] = order[second], order[first]
    writer.emit("Transpose", reads, write, perm=order)


@_writes("_softmax", "softmax")
def _softmax(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    writer.emit("Softmax", reads, write, axis=int(node.settings.get("dim", -1)))


@_writes("native_layer_norm", "layer_norm")
def _layer_norm(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    shape = writer.shape(node.reads[0])
    names = reads[1:]
    own = writer.shape(node.reads[1]) if names else shape[-1:]
    while len(names) < 2:
        names = [*names, f"{write}_{len(names)}"]
        writer.weight(names[-1], own)
    writer.emit("LayerNormalization", [reads[0], *names], write, axis=len(shape) - len(own))


@_writes("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d")
def _upsample(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    modes = {"nearest2d": "nearest", "bilinear2d": "linear", "bicubic2d": "cubic"}
    mode = modes[node.kind.removeprefix("upsample_")]
    how = "align_corners" if node.settings.get("align_corners") else "half_pixel"
    if mode == "nearest":
        how = "asymmetric"
    sizes = writer.constant(writer.shape(node.write), np.int64)
    given = [*reads, "", "", sizes]
    writer.emit("Resize", given, write, mode=mode, coordinate_transformation_mode=how)


@_writes("pixel_shuffle", "pixel_unshuffle")
def _pixel_shuffle(writer: _Writer, node: Node, reads: list[str], write: str) -> None:
    if node.kind == "pixel_shuffle":
        by = int(node.settings["upscale_factor"])
        writer.emit("DepthToSpace", reads, write, blocksize=by, mode="CRD")
    else:
        by = int(node.settings["downscale_factor"])
        writer.emit("SpaceToDepth", reads, write, blocksize=by)


def _listed(values: Any) -> list[int]:
    return [int(v) for v in values] if isinstance(values, list | tuple) else [int(values)]


def _each(values: Any, dims: int) -> list[int]:
    """A setting by dimension, which PyTorch gives as one number too."""
    found = _listed(values)
    return found * dims if len(found) == 1 else found
