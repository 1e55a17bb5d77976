"""Settings that all tests share."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

# One thread a process, before any library makes its pool: two workers share two cores, and runs
# are compared bit for bit with those of processes that tests start.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import pytest
import torch
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
pytest_plugins = ["order", "pytester"]
torch.set_num_threads(1)

# A shell starts what runs in its background with interrupts ignored, nohup with hang-ups, and
# children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

settings.register_profile(
    "lcprune",
    deadline=None,
    max_examples=30,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("lcprune")


@pytest.fixture(autouse=True)
def _global_generator_untouched() -> object:
    """No test leaks its draws from PyTorch's global generator into the next."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real data and weights, where there is one."""
    root = os.environ.get("LCPRUNE_DATA")
    if not root:
        pytest.skip("LCPRUNE_DATA is not set: the folder with data/ and weights/")
    return Path(root)
