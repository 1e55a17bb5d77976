"""The command line."""

from lcprune.cli._app import main

__all__ = ["main"]
