"""What goes into modules and comes out of them: channels that their attributes may count."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lcprune.tracing._planes import PlaneStore, varying


class Passes:
    """The channel vectors that go ``into`` modules and come ``out_of`` them, by module name.

    Noted are those of a size that an attribute of the module has.
    """

    def __init__(self) -> None:
        self.into: dict[str, list[Tensor]] = {}
        self.out_of: dict[str, list[Tensor]] = {}
        self._entered: set[str] = set()

    def begin(self) -> None:
        """Note that a run begins: a module that the last one has not left was not entered yet."""
        self._entered.clear()

    def follow(self, module: nn.Module, name: str, values: Any, planes: PlaneStore) -> None:
        """Note ``values``, which are a module's inputs as it is entered, then its outputs."""
        entering = name not in self._entered
        self._entered ^= {name}
        if type(module).__module__.startswith("torch.nn."):
            return
        sizes = set(sizes_of(module).values())
        noted = (self.into if entering else self.out_of).setdefault(name, [])
        for leaf in tree_leaves(values) if sizes else ():
            for plane in planes.of(leaf) if isinstance(leaf, Tensor) else ():
                if len(varying(plane)) == 1 and plane.numel() in sizes:
                    noted.append(plane.reshape(-1))


def sizes_of(module: nn.Module) -> dict[tuple[str, int | None], int]:
    """The integers above 1 among a module's attributes, by name and position in a tuple or list."""
    found: dict[tuple[str, int | None], int] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or isinstance(value, bool):
            continue
        if isinstance(value, int):
            found[name, None] = int(value)
        elif type(value) in (tuple, list):
            for index, item in enumerate(value):
                if isinstance(item, int) and not isinstance(item, bool):
                    found[name, index] = int(item)
    return {key: size for key, size in found.items() if size > 1}
