"""The public names: sorted, importable, and nothing that was not meant."""

from __future__ import annotations

import types

import lcprune


def test_all_lists_every_public_name() -> None:
    found = {
        name
        for name, value in vars(lcprune).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert found == set(lcprune.__all__)
    assert lcprune.__all__ == sorted(lcprune.__all__)
