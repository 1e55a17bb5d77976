"""A slimmed network as files that load without pickle."""

from lcprune.artifact._description import (
    ARTIFACT,
    BUFFERS,
    NEW,
    PLAN,
    WEIGHTS,
    Description,
    read_description,
    read_file,
    versions,
)
from lcprune.artifact._load import load, read_example, read_plan
from lcprune.artifact._save import save

__all__ = [
    "ARTIFACT",
    "BUFFERS",
    "NEW",
    "PLAN",
    "WEIGHTS",
    "Description",
    "load",
    "read_description",
    "read_example",
    "read_file",
    "read_plan",
    "save",
    "versions",
]
