"""Public names of a package that are imported when they are asked for."""

from __future__ import annotations

TYPE_CHECKING = False  # to type checkers it is true; `typing` itself takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


def lazily(
    package: str, names: Sequence[str], homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__`` (PEP 562).

    ``names`` is its ``__all__``; ``homes`` has the modules (``.training``) and what each brings
    (``TrainingConfig finetune``).
    """
    home = {name: module for module, brought in homes.items() for name in brought.split()}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(home[name], package), name)

    return get, lambda: sorted(names)
