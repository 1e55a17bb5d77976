"""The modules that run while a model is traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class Running:
    """The module that runs, by hooks.

    ``entered`` are the names of all that ever ran, ``entries`` is how often one was entered.
    """

    def __init__(self) -> None:
        self.entered: set[str] = set()
        self.entries = 0
        self._stack: list[tuple[str, nn.Module]] = []

    @property
    def name(self) -> str:
        """The name of the running module; empty for the model itself."""
        return self._stack[-1][0] if self._stack else ""

    @property
    def title(self) -> str:
        """The name of the running module, or ``the model``, as a reason gives it."""
        return self.name or "the model"

    @property
    def module(self) -> nn.Module | None:
        return self._stack[-1][1] if self._stack else None

    @property
    def caller(self) -> str | None:
        """The name of the module that called the running one; none for the model itself."""
        return self._stack[-2][0] if len(self._stack) > 1 else None

    @contextmanager
    def watching(
        self, model: nn.Module, around: Callable[[nn.Module, str, Any], None]
    ) -> Iterator[None]:
        """Keep track by hooks that are gone afterwards.

        ``around`` is called with a module, its name and its inputs as it is entered, and with its
        outputs as it is left.
        """
        handles = []
        for name, module in model.named_modules():

            def enter(module: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
                self.entered.add(name)
                self.entries += 1
                self._stack.append((name, module))
                around(module, name, (args, kwargs))

            def leave(
                module: nn.Module, args: Any, kwargs: Any, outputs: Any, name: str = name
            ) -> None:
                # A forward that fails before the hook above leaves a module that was not entered.
                if self._stack and self._stack[-1][1] is module:
                    around(module, name, outputs)
                    self._stack.pop()

            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave, with_kwargs=True, always_call=True))
        try:
            yield
        finally:
            self._stack.clear()
            for handle in handles:
                handle.remove()
