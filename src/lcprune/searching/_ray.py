"""Many processes, GPUs or machines, by Ray."""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lcprune._checks import instance, integer, number
from lcprune._processes import packed
from lcprune._text import one_line
from lcprune.errors import InputError, LcpruneError, RunError
from lcprune.searching._executor import Evaluation, Evaluator, Job, Work, Workers, evaluate

_MOST = 10_000

_STORE = 2**28
"""Bytes of the object store of a cluster of one's own, beside what is put there."""

_LISTENING = 10.0
"""Seconds within which a cluster takes a connection."""


@dataclass(frozen=True)
class RayExecutor:
    """``workers`` processes on the Ray cluster at ``address``, each with its own network.

    Without an address a cluster of this machine is begun, and ended with the search; where Ray is
    initialised already, that cluster is used. Each worker has ``threads`` threads and CPUs, and
    ``gpus`` GPUs, which may be a fraction: four workers of 0.25 share one. The network, the
    recalibration and the fitness are sent to the cluster once.

    A worker that dies is replaced, and its plan evaluated again, at most ``retries`` times.
    Workers that are not there after ``patience`` seconds are an error, as is a cluster that is
    too small.

    Example:
        result = search(..., executor=RayExecutor(workers=4, gpus=0.25))
    """

    workers: int = 2
    address: str | None = None
    gpus: float = 0.0
    threads: int = 1
    retries: int = 2
    patience: float = 300.0

    def __post_init__(self) -> None:
        integer("workers", self.workers, 1, _MOST)
        integer("threads", self.threads, 1, _MOST)
        integer("retries", self.retries, 0)
        number("patience", self.patience, more_than=0)
        number("gpus", self.gpus, 0, _MOST)
        if self.address is not None:
            instance("address", self.address, str, "an address such as auto or HOST:PORT")
        # Ray shares a GPU by fractions, and gives out several only as a whole.
        if not (0 <= self.gpus <= 1 or (float(self.gpus).is_integer() and self.gpus > 0)):
            raise InputError(
                f"Ray with {self.gpus} GPUs a worker, expected 0 … 1 or a whole number"
            )

    @property
    def capacity(self) -> int:
        return self.workers

    @property
    def environment(self) -> Mapping[str, Any]:
        """The threads are those of a worker here."""
        return {
            "executor": "ray",
            "workers": self.workers,
            "threads": self.threads,
            "gpus": self.gpus,
        }

    def start(self, work: Work) -> Workers:
        """Begin the workers; ``InputError`` or ``RunError`` where that can't be done."""
        _check_devices(work.model, self.gpus)
        ray = _import_ray()
        try:
            content = packed(work, ray.cloudpickle)
        except Exception as error:  # whatever __reduce__ of the caller's raises
            raise InputError(
                f"the fitness can't be sent to other processes ({one_line(error)}), expected one"
                " that can be pickled"
            ) from error
        connected = _connect(ray, self.address, self.workers * self.threads, len(content))
        workers = _RayWorkers(ray, self, connected)
        try:
            workers.begin(content)
        except BaseException:
            workers.close()
            raise
        return workers


class _RayWorkers:
    """The actors of one search, and which of them does what."""

    def __init__(self, ray: Any, asked: RayExecutor, connected: bool) -> None:
        self._ray = ray
        self._asked = asked
        self._connected = connected
        self._actors: set[Any] = set()
        self._idle: deque[Any] = deque()
        self._jobs: deque[Job] = deque()
        self._running: dict[Any, tuple[Any, Job]] = {}
        self._losses: dict[int, int] = {}

    def begin(self, content: bytes) -> None:
        """Put the work into the object store, and wait until all workers have it."""
        ray, asked = self._ray, self._asked
        self._check_size()
        # An array, since that is read from the store in place; bytes would be copied first.
        self._work = ray.put(np.frombuffer(content, dtype=np.uint8))
        self._path = [folder or os.getcwd() for folder in sys.path] + [os.getcwd()]  # noqa: PTH109
        self._actor = ray.remote(
            num_cpus=asked.threads, num_gpus=asked.gpus, max_restarts=0, max_task_retries=0
        )(Worker)
        for _ in range(asked.workers):
            self._add()
        ready = [actor.ready.remote() for actor in self._idle]
        done, missing = ray.wait(ready, num_returns=len(ready), timeout=asked.patience)
        try:
            ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise RunError(
                f"a Ray worker can't unpack the network and its fitness: {_reason(error.cause)},"
                " expected lcprune and the modules that they come from on its machine"
            ) from error
        except ray.exceptions.RayError as error:
            raise RunError(f"a Ray worker died at its start: {_reason(error)}") from error
        if missing:
            raise RunError(
                f"{len(done)} of {asked.workers} Ray workers are there after {asked.patience:g} s,"
                " expected all: fewer workers, or a cluster that is less busy"
            )

    def submit(self, job: Job) -> None:
        self._jobs.append(job)
        self._dispatch()

    def next(self) -> Evaluation:
        ray = self._ray
        while True:
            (reference, *_), _ = ray.wait(list(self._running), num_returns=1)
            actor, job = self._running.pop(reference)
            try:
                evaluation: Evaluation = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                # What the fitness raised is raised here as it is in one process.
                raise error.cause from error
            except ray.exceptions.RayError as error:
                self._lost(actor, job, error)
                continue
            self._idle.append(actor)
            self._dispatch()
            return evaluation

    def close(self) -> None:
        for actor in self._actors:
            with suppress(Exception):
                self._ray.kill(actor, no_restart=True)
        self._actors.clear()
        if self._connected:
            self._connected = False
            self._ray.shutdown()

    def _add(self) -> None:
        actor = self._actor.remote(self._work, self._asked.threads, self._path)
        self._actors.add(actor)
        self._idle.append(actor)

    def _dispatch(self) -> None:
        while self._jobs and self._idle:
            actor, job = self._idle.popleft(), self._jobs.popleft()
            self._running[actor.evaluate.remote(job)] = actor, job

    def _lost(self, actor: Any, job: Job, error: Exception) -> None:
        """Put another worker in the place of a dead one, and give it the same job."""
        self._actors.discard(actor)
        with suppress(Exception):  # it may be out of reach only
            self._ray.kill(actor, no_restart=True)
        times = self._losses[job.number] = self._losses.get(job.number, 0) + 1
        if times > self._asked.retries:
            raise RunError(
                f"trial {job.number} lost its Ray worker {times} times, expected workers that"
                f" live; the last time: {_reason(error)}"
            ) from error
        self._add()
        self._jobs.appendleft(job)
        self._dispatch()

    def _check_size(self) -> None:
        """Refuse what Ray would wait for without end."""
        asked, there = self._asked, self._ray.cluster_resources()
        for name, each in (("CPU", asked.threads), ("GPU", asked.gpus)):
            if asked.workers * each > there.get(name, 0) + 1e-9:
                raise RunError(
                    f"{asked.workers} Ray workers of {each:g} {name} each on a cluster that has"
                    f" {there.get(name, 0):g}, expected no more than there are"
                )


def _check_devices(model: torch.nn.Module, gpus: float) -> None:
    devices = {parameter.device for parameter in model.parameters()}
    for device in devices:
        if device.type == "cuda" and gpus == 0:
            raise InputError(f"the network is on {device}, expected gpus= above 0, or a CPU")
        if device.type == "cuda" and device.index not in (None, 0):
            raise InputError(
                f"the network is on {device}, expected cuda:0: a worker sees its own GPU only"
            )


def _reason(error: BaseException) -> str:
    """Why a worker died, without Ray's names for it."""
    if isinstance(error, LcpruneError):
        return one_line(error)
    text = str(error)
    for mark in ("Worker exit detail:", "Worker exit type:"):
        text = text.rpartition(mark)[2]
    return f"{type(error).__name__}: {one_line(RuntimeError(text), 240)}"


class Worker:
    """Holds the network and its fitness, and evaluates one plan at a time.

    ``work`` is ``packed`` (uint8, straight from the object store), ``path`` is where the modules
    of the caller are, as far as this machine has them.
    """

    def __init__(self, work: Any, threads: int, path: Sequence[str]) -> None:
        torch.set_num_threads(threads)
        sys.path.extend(folder for folder in path if folder not in sys.path)
        self._work = work
        self._evaluator: Evaluator | None = None

    def load(self) -> Evaluator:
        """Unpack the work, once; apart from ``__init__`` so that an error keeps its type."""
        if self._evaluator is None:
            work: Work = pickle.loads(memoryview(self._work))
            self._evaluator = work.evaluator()
            self._work = None
        return self._evaluator

    def ready(self) -> bool:
        self.load()
        return True

    def evaluate(self, job: Job) -> Evaluation:
        return evaluate(self.load(), job)


def _import_ray() -> Any:
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


def _connect(ray: Any, address: str | None, cpus: int, size: int) -> bool:
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
