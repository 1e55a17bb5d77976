"""What the losses so far say of widths that were not tried, with training or without."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from lcprune.graph import BoolArray, FloatArray, IntArray

_GROWTH = 1.1
_MOST = 512
_APART = 0.5
_TRAINED_APART = (0.25, 0.5, 1.0, 2.0, 4.0)
_FAR = 0.9


@dataclass(frozen=True, eq=False)
class Told:
    """What a search has been told, in that order: widths, int64 [n, families], finite losses [n].

    ``probes`` [n] were measured on other images, and ``trained`` [n] after some steps of training.
    """

    widths: IntArray
    losses: FloatArray
    probes: BoolArray
    trained: BoolArray

    def of(self, chosen: Any) -> Told:
        """Some of them."""
        own = (self.widths, self.losses, self.probes, self.trained)
        return Told(*(each[chosen] for each in own))


class Surrogate:
    """A Gaussian process over the logarithms of widths, fitted to what was told.

    The kernel is a Matérn 5/2 with one length for all families, plus noise: plans that are alike
    differ by some hundredths in loss for no reason. A probe, measured on other images, is half a
    unit of length away from a plan of its widths, and a loss after training as far as makes the
    losses of both kinds likeliest: where one tells little of the other, far. Far from all that was
    tried the process expects a loss that a tenth of the points exceed. The kernel's numbers
    maximise the likelihood, fitted anew whenever there are a tenth more points. Of many points the
    best and the latest 256 others are taken.

    Rasmussen, Williams (2006), "Gaussian Processes for Machine Learning", algorithm 2.1 and 5.1;
    expected improvement is that of Jones, Schonlau, Welch (1998), its share that a loss of another
    kind is worth that of Huang, Allen, Notz, Miller (2006), "Sequential kriging optimization using
    multiple-fidelity evaluations", equations 9 to 12.

    Example:
        surrogate = Surrogate(ranker.widths.full)
        gains = surrogate.improvements(told, others)
        promising = others[gains.argmax()]
    """

    def __init__(self, full: IntArray) -> None:
        self._full = full
        self._kernels: dict[int, _Fitted] = {}

    def improvements(self, told: Told, asked: IntArray) -> FloatArray:
        """How far each of ``asked`` [m, families] is expected to be below the best of the plans.

        Below the lowest loss that the process expects of one, since the lowest that was told is
        low by luck too.

        ``told`` are at least two points, none of them trained and not all probes; a later call has
        those of an earlier one, and more. The unit is the spread of the losses.
        """
        process, apart = self._process(told)
        mean, deviation = _predicted(process, self._features(asked, apart))
        best = process.predict(self._features(told.widths[~told.probes], apart)).min()
        return _expected(best - mean, deviation)

    def by_kind(self, told: Told, asked: IntArray) -> tuple[FloatArray, FloatArray]:
        """What each of ``asked`` [m, families] is worth, measured without training and with it.

        With it that is the expected improvement over what was trained, of which there is some;
        without it the part of that which the loss would tell: by how far the two are correlated,
        given all that is known. Of either the part that is not noise.
        """
        process, apart = self._process(told)
        cheap, dear = (self._features(asked, apart, trained=kind) for kind in (False, True))
        count = len(asked)
        mean, covariance = _predicted(process, np.concatenate([cheap, dear]), whole=True)
        noise = float(process.kernel_.k2.noise_level)
        total = np.maximum(np.diag(covariance), 1e-12)
        own = np.maximum(total - noise, 1e-12)
        both = np.diag(covariance[:count, count:]) / np.sqrt(own[:count] * own[count:])
        tried = told.widths[told.trained]
        best = process.predict(self._features(tried, apart, trained=True)).min()
        gains = _expected(best - mean[count:], np.sqrt(total[count:]))
        certain = 1 - np.sqrt(noise / (own + noise))
        return gains * np.clip(np.abs(both), 0, 1) * certain[:count], gains * certain[count:]

    def _process(self, told: Told) -> tuple[Any, float]:
        """The fitted process, and how far apart losses with and without training are."""
        from sklearn.gaussian_process import GaussianProcessRegressor  # takes a second

        fitted = self._fitted(told)
        process = GaussianProcessRegressor(fitted.kernel, optimizer=None)
        known = told.of(_informative(_scaled_of(told)))
        process.fit(self._features_of(known, fitted.apart), _scaled_of(known))
        return process, fitted.apart

    def _fitted(self, told: Told) -> _Fitted:
        # By the count alone, so that a search that goes on fits where the unbroken one did.
        count = math.ceil(_GROWTH ** math.floor(math.log(len(told.losses), _GROWTH)))
        if count not in self._kernels:
            first = told.of(slice(count))
            known = first.of(_informative(_scaled_of(first)))
            both = known.trained.any() and not known.trained.all()
            distances = _TRAINED_APART if both else (1.0,)
            tries = [self._fit(known, apart) for apart in distances]
            self._kernels = {count: max(tries, key=lambda fitted: fitted.likelihood)}
        return self._kernels[count]

    def _fit(self, known: Told, apart: float) -> _Fitted:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        kernel = ConstantKernel(1.0, (0.05, 50)) * Matern(1.0, (0.3, 10), nu=2.5)
        process = GaussianProcessRegressor(kernel + WhiteKernel(0.03, (1e-3, 0.5)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # at a bound: few points
            process.fit(self._features_of(known, apart), _scaled_of(known))
        return _Fitted(process.kernel_, apart, float(process.log_marginal_likelihood_value_))

    def _features_of(self, told: Told, apart: float) -> FloatArray:
        return self._features(told.widths, apart, told.probes, told.trained)

    def _features(
        self,
        widths: IntArray,
        apart: float,
        probes: BoolArray | bool = False,
        trained: BoolArray | bool = False,
    ) -> FloatArray:
        """[n, families + 2], all of them lengths."""
        shares = np.log(widths / self._full + 0.02)
        kinds = (_APART * np.asarray(probes), apart * np.asarray(trained))
        return np.column_stack([shares, *(np.broadcast_to(kind, len(shares)) for kind in kinds)])


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A kernel with its numbers, the distance of the two kinds of losses, and how likely both."""

    kernel: Any
    apart: float
    likelihood: float


def _predicted(process: Any, features: FloatArray, whole: bool = False) -> Any:
    """Means, and deviations or the whole covariance."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a variance that rounding made negative
        return process.predict(features, return_std=not whole, return_cov=whole)


def _expected(below: FloatArray, deviation: FloatArray) -> FloatArray:
    """Of a normal variable ``below`` some value on average, what is above 0 of it."""
    deviation = np.maximum(deviation, 1e-12)
    sure = stats.norm.cdf(below / deviation)
    gains: FloatArray = below * sure + deviation * stats.norm.pdf(below / deviation)
    return gains


def _scaled_of(told: Told) -> FloatArray:
    """Losses of either kind in the spread of their own."""
    scaled = np.zeros(len(told.losses))
    for kind in (~told.trained, told.trained):
        if kind.any():
            scaled[kind] = _scaled(told.losses[kind])
    return scaled


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
