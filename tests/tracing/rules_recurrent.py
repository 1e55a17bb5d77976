"""Recurrent layers and cells: what they read follows, what they keep stays, and all is counted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tracing.rule_case import Case, values

STAYS = "numbers of its own"


class Sequences(nn.Module):
    """A convolution over time, a recurrent layer, and a layer that reads what it gives."""

    def __init__(self, layer: nn.Module, how: str, width: int = 5) -> None:
        super().__init__()
        self.how = how
        self.stem, self.layer = nn.Conv1d(3, 6, 3, padding=1), layer
        self.mix, self.head = nn.Linear(width, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu().transpose(1, 2)
        return self.head(self.mix(getattr(self, f"_{self.how}")(x).tanh()).tanh())

    def _outputs(self, x: Tensor) -> Any:
        return self.layer(x)[0]

    def _time_first(self, x: Tensor) -> Any:
        return self.layer(x.transpose(0, 1))[0]

    def _last_state(self, x: Tensor) -> Any:
        state = self.layer(x)[1]
        return (state[0] if isinstance(state, tuple) else state)[-1]

    def _given_state(self, x: Tensor) -> Any:
        return self.layer(x, x.new_zeros(1, x.shape[0], 5))[0]

    def _packed(self, x: Tensor) -> Any:
        lengths = torch.full((x.shape[0],), x.shape[1] - 1)
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        return pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0]

    def _one(self, x: Tensor) -> Any:
        return self.layer(x[0])[0]

    def _steps(self, x: Tensor) -> Any:
        state = x.new_zeros(x.shape[0], 5)
        for step in range(x.shape[1]):
            state = self.layer(x[:, step], state)
        return state

    def _pairs(self, x: Tensor) -> Any:
        state = x.new_zeros(x.shape[0], 5), x.new_zeros(x.shape[0], 5)
        for step in range(x.shape[1]):
            state = self.layer(x[:, step], state)
        return state[0]


def recurrent(
    name: str, layer: Any, how: str, width: int = 5, *suffixes: str, first: str = "_l0"
) -> Case:
    parts = [f"layer.weight_{kind}{s}" for s in suffixes or (first,) for kind in ("ih", "hh")]
    return Case(
        name,
        lambda: Sequences(layer(), how, width),
        "stem mix",
        6 + 4,
        stay=dict.fromkeys(parts, STAYS),
        example=values(1, 3, 7),
    )


BOTH = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
CASES = (
    recurrent("an LSTM", lambda: nn.LSTM(6, 5, batch_first=True), "outputs"),
    recurrent("an LSTM of two layers, both ways",
              lambda: nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True, dropout=0.5),
              "outputs", 10, *BOTH),
    recurrent("an LSTM that reads as much as it keeps", lambda: nn.LSTM(6, 6, batch_first=True),
              "outputs", 6),
    recurrent("an LSTM without shifts", lambda: nn.LSTM(6, 5, bias=False), "time_first"),
    recurrent("an LSTM of one sequence", lambda: nn.LSTM(6, 5), "one"),
    recurrent("a packed LSTM", lambda: nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True),
              "packed", 10, *BOTH),
    recurrent("the last state of a GRU", lambda: nn.GRU(6, 5, batch_first=True), "last_state"),
    recurrent("a GRU of two layers", lambda: nn.GRU(6, 5, 2), "time_first", 5, "_l0", "_l1"),
    recurrent("a packed GRU", lambda: nn.GRU(6, 5, batch_first=True), "packed"),
    recurrent("a plain recurrent layer that is given a state",
              lambda: nn.RNN(6, 5, batch_first=True), "given_state"),
    recurrent("a plain recurrent layer of rectifiers",
              lambda: nn.RNN(6, 5, nonlinearity="relu", batch_first=True), "last_state"),
    recurrent("a GRU's cell", lambda: nn.GRUCell(6, 5), "steps", first=""),
    recurrent("a plain cell", lambda: nn.RNNCell(6, 5), "steps", first=""),
    recurrent("an LSTM's cell", lambda: nn.LSTMCell(6, 5), "pairs", first=""),
)  # fmt: skip
