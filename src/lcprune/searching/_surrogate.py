"""What the losses so far say of widths that were not tried."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from scipy import stats

from lcprune.graph import BoolArray, FloatArray, IntArray

_GROWTH = 1.1
_MOST = 512
_APART = 0.5
_FAR = 0.9


class Surrogate:
    """A Gaussian process over the logarithms of widths, fitted to what was told.

    The kernel is a Matérn 5/2 with one length for all families, plus noise: plans that are alike
    differ by some hundredths in loss for no reason. A probe, measured on other images, is half a
    unit of length away from a plan of its widths. Far from all that was tried the process expects
    a loss that a tenth of the points exceed. The kernel's numbers maximise the likelihood, fitted
    anew whenever there are a tenth more points. Of many points the best and the latest 256
    others are taken.

    Rasmussen, Williams (2006), "Gaussian Processes for Machine Learning", algorithm 2.1 and 5.1;
    expected improvement is that of Jones, Schonlau, Welch (1998).

    Example:
        surrogate = Surrogate(ranker.widths.full)
        gains = surrogate.improvements(tried, losses, probes, others)
        promising = others[gains.argmax()]
    """

    def __init__(self, full: IntArray) -> None:
        self._full = full
        self._kernels: dict[int, Any] = {}

    def improvements(
        self, tried: IntArray, losses: FloatArray, probes: BoolArray, asked: IntArray
    ) -> FloatArray:
        """How far each of ``asked`` [m, families] is expected to be below the best of the plans.

        Below the lowest loss that the process expects of one, since the lowest that was told is
        low by luck too.

        ``tried`` [n, families] and their finite ``losses`` [n] are in the order in which they
        were told, at least two, and not all of them ``probes`` [n]; a later call has those of an
        earlier one, and more. The unit is the spread of the losses.
        """
        from sklearn.gaussian_process import GaussianProcessRegressor  # takes a second

        chosen = _informative(losses)
        process = GaussianProcessRegressor(self._kernel(tried, losses, probes), optimizer=None)
        process.fit(self._features(tried[chosen], probes[chosen]), _scaled(losses[chosen]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a variance that rounding made negative
            mean, deviation = process.predict(self._features(asked), return_std=True)
        deviation = np.maximum(deviation, 1e-12)
        below = process.predict(self._features(tried[~probes])).min() - mean
        sure = stats.norm.cdf(below / deviation)
        gains: FloatArray = below * sure + deviation * stats.norm.pdf(below / deviation)
        return gains

    def _kernel(self, tried: IntArray, losses: FloatArray, probes: BoolArray) -> Any:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        # By the count alone, so that a search that goes on fits where the unbroken one did.
        count = math.ceil(_GROWTH ** math.floor(math.log(len(losses), _GROWTH)))
        if count not in self._kernels:
            chosen = _informative(losses[:count])
            kernel = ConstantKernel(1.0, (0.05, 50)) * Matern(1.0, (0.3, 10), nu=2.5)
            process = GaussianProcessRegressor(kernel + WhiteKernel(0.03, (1e-3, 0.5)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # at a bound: few points
                process.fit(self._features(tried[chosen], probes[chosen]), _scaled(losses[chosen]))
            self._kernels = {count: process.kernel_}
        return self._kernels[count]

    def _features(self, widths: IntArray, probes: BoolArray | float = 0.0) -> FloatArray:
        """[n, families + 1], all of them lengths."""
        shares = np.log(widths / self._full + 0.02)
        return np.column_stack([shares, np.broadcast_to(_APART * probes, len(shares))])


def _informative(losses: FloatArray) -> IntArray:
    """All points, or of many the lowest losses and the latest others."""
    if len(losses) <= _MOST:
        return np.arange(len(losses))
    order = np.argsort(losses, kind="stable")
    others = np.sort(order[_MOST // 2 :])
    return np.concatenate([order[: _MOST // 2], others[-_MOST // 2 :]])


def _scaled(losses: FloatArray) -> FloatArray:
    """Logarithms of what is above the lowest loss, 0 where the process knows nothing."""
    above = losses - losses.min()
    middle = float(np.median(above))
    logarithms = np.log1p(above / (middle if middle > 0 else 1.0))
    spread = float(logarithms.std())
    scaled: FloatArray = (logarithms - np.quantile(logarithms, _FAR)) / (spread if spread else 1.0)
    return scaled
