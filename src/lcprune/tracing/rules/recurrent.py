"""Recurrent layers: what they read follows, and their hidden state stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lcprune.tracing._flow import Call, LabelFlow
from lcprune.tracing._planes import along, from_vector, varying
from lcprune.tracing._rule import rule

LAYERS = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
CELLS = frozenset({"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"})


def keep_hidden(flow: LabelFlow, name: str, args: Sequence[Any]) -> None:
    """Keep the hidden channels of a recurrent layer or cell that is called with ``args``.

    PyTorch's modules compare them with numbers of their own, and take the gates apart in equal
    parts. The first layer's input channels follow what is in front, and ``input_size`` with them.
    """
    weights, first, states = _parts(name, args)
    reason = f"{flow.running.title} compares sizes with numbers of its own"
    for tensor in states:
        for plane in flow.planes.of(tensor):
            flow.labels.pin(plane, reason)
    for weight in weights:
        for plane in flow.planes.of(weight):
            if any(weight is one for one in first) and varying(plane) == {1}:
                flow.notes.size_attribute("input_size", plane.reshape(-1))
            else:
                flow.labels.pin(plane, reason)


def _parts(name: str, args: Sequence[Any]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The weights of a call, those that read its input, and the states that it begins with."""
    if name in CELLS:
        weights = [t for t in args[2:] if isinstance(t, Tensor)]
        return weights, weights[:1], _tensors(args[1])
    packed = isinstance(args[3], list | tuple)  # (data, sizes of batches, states, weights, …)
    given, options = (args[2], args[4:]) if packed else (args[1], args[3:])
    weights = _tensors(args[3] if packed else args[2])
    layers, bidirectional = int(options[1]), bool(options[4])
    directions = 2 if bidirectional else 1
    step = max(1, len(weights) // (layers * directions))
    return weights, [weights[d * step] for d in range(directions)], _tensors(given)


def _tensors(values: Any) -> list[Tensor]:
    found = [values] if isinstance(values, Tensor) else values
    return [tensor for tensor in found if isinstance(tensor, Tensor)]


@rule("_pack_padded_sequence")
def pack(call: Call) -> Any:
    """Steps of sequences of different lengths, one behind the other: features stay features."""
    source = call.args[0]
    out = call.run()
    last = source.dim() - 1
    for plane in call.planes(source):
        if varying(plane) != {last}:
            call.pin(plane, f"labels that are not features at {call.where}")
    features = along(call.planes(source), last)
    if features is not None and varying(features) == {last}:
        call.set(out[0], from_vector(features.reshape(-1), out[0].dim() - 1, out[0].dim()))
    return out


@rule(optional=("_thnn_fused_lstm_cell", "_thnn_fused_gru_cell"))
def fused_cell(call: Call) -> Any:
    """The gates of a cell on a GPU, from products that were counted; all of them stay."""
    out = call.run()
    for tensor in call.tensors():
        for plane in call.planes(tensor):
            call.pin(plane, f"the gates of {call.where}")
    return out
