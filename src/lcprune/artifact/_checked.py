"""JSON files that hold a checksum of their own contents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcprune._files import read_whole
from lcprune.artifact._versions import versions
from lcprune.errors import InputError

SCHEMA = 2
"""Of every such file; those of schema 1 have no checksum and are read without one."""
_CHECKSUM = "checksum"
_UNCHECKED = 1


def checked_json(values: Mapping[str, Any]) -> str:
    """``values`` as JSON text, with the schema first and the checksum last."""
    values = {"schema": SCHEMA, **values}
    return json.dumps({**values, _CHECKSUM: _checksum(values)}, indent=1)


def read_checked(path: Path, error: type[InputError] = InputError) -> dict[str, Any]:
    """The values in a file that holds what ``checked_json`` gave.

    The checksum is of the contents, not of the text: other spaces change nothing. ``error``
    where the file is missing or damaged, or was written by a later version, which is named.
    """
    try:
        raw: dict[str, Any] = json.loads(read_whole(path, error).decode("utf-8"))
    except (ValueError, RecursionError) as caught:
        raise error(f"{path} is damaged: expected JSON that lcprune wrote") from caught
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if type(schema) is not int or schema < _UNCHECKED:
        raise error(f"{path} is damaged, or was not written by lcprune: it has no schema")
    checksum = raw.pop(_CHECKSUM, None)
    if checksum != (None if schema == _UNCHECKED else _checksum(raw)):
        raise error(f"{path} is damaged: its checksum differs")
    if schema > SCHEMA:
        wrote = raw.get("versions")
        wrote = wrote.get("lcprune") if isinstance(wrote, dict) else None
        raise error(
            f"{path} is of schema {schema}, written by lcprune {wrote or 'of a later version'}; "
            f"this is lcprune {versions().get('lcprune', '')}, expected schema {SCHEMA} or less"
        )
    return raw


def _checksum(values: Mapping[str, Any]) -> str:
    # Through JSON once, so that it is the same of what was written and of what is read.
    read = json.loads(json.dumps(values))
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()
