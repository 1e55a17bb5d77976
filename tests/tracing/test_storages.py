"""What is known of values by where they are, and forgotten when they are no more."""

from __future__ import annotations

import torch
from torch import Tensor

from lcprune.tracing._storages import DataWatch

aten = torch.ops.aten


def test_what_is_known_of_a_storage_ends_with_it_and_not_before() -> None:
    watch = DataWatch([])

    def constant(made: Tensor) -> Tensor:
        watch.follow(aten.zeros.default, [], made)
        return made

    memory = bytearray(4000)  # two tensors, one after the other, are where it is
    held, gone = constant(torch.zeros(1000)), constant(torch.frombuffer(memory, dtype=torch.float))
    view = held[10:]
    assert all(map(watch.is_constant, (held, view, gone)))
    address = gone.untyped_storage().data_ptr()
    del gone
    assert watch.let_go() == {address}
    assert watch.is_constant(held)
    assert watch.is_constant(view)
    again = torch.frombuffer(memory, dtype=torch.float)  # an input, which no operator has made
    assert again.untyped_storage().data_ptr() == address
    assert not watch.is_constant(again)
    assert not watch.let_go()
