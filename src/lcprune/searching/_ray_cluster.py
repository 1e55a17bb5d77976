"""A connection to Ray, and what it leaves as it was."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lcprune._factory import one_line
from lcprune.errors import InputError, RunError

_STORE = 2**28
"""Bytes of the object store of a cluster of one's own, beside what is put there."""

_LISTENING = 10.0
"""Seconds within which a cluster takes a connection."""


def import_ray() -> Any:
    """Ray, imported at first use; ``InputError`` where it is missing."""
    # Before the import, which reads them: nothing is sent home, GPUs of others stay hidden.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise InputError(
            f"the Ray executor needs Ray ({one_line(error)}), expected `pip install lcprune[ray]`"
        ) from error


def connect(ray: Any, address: str | None, cpus: int, size: int) -> bool:
    """Connect to the cluster at ``address``, or to one that is begun here for ``cpus``.

    Returns whether the connection is new and is to be closed again; one that the caller had
    opened is used as it is.
    """
    if ray.is_initialized():
        return False
    if address is not None:
        _check_address(address)
    own = {"num_cpus": cpus, "object_store_memory": _STORE + 2 * size} if address is None else {}
    try:
        with _sigterm_kept():
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **own,
            )
    except (OSError, RuntimeError, ValueError) as error:  # a half-made connection stays otherwise
        with suppress(Exception):
            ray.shutdown()
        where = f"the Ray cluster at {address}" if address else "a Ray cluster on this machine"
        raise RunError(
            f"can't connect to {where} ({one_line(error)}), expected one that runs, with the same"
            " versions of Ray and Python"
        ) from error
    except BaseException:  # Ctrl-C meanwhile
        ray.shutdown()
        raise
    return True


def _check_address(address: str) -> None:
    """Refuse at once a place where nobody listens, for which Ray would wait minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENING).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"nobody listens at {address} ({one_line(error)}), expected the address of a Ray"
            " cluster, as `ray start --head` prints it"
        ) from error


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Ray puts its own handler in the place of the caller's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
