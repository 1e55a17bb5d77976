"""The energy of a network as a user's own measurements tell it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from lcprune._checks import instance, integer, is_iterable, number, refused
from lcprune._text import shown
from lcprune.cost._bound import BoundCost, total
from lcprune.cost._counts import CountMatrix, Sums
from lcprune.cost._energy import priced
from lcprune.cost._model import check_mask
from lcprune.errors import InputError
from lcprune.graph import BoolArray, ChannelGraph, FloatArray, IntArray

_FEWEST = 4
_FOLDS = 10
_PICOJOULES = 1e12


class Cuts(Protocol):
    """What a ``Plan`` says of the channels that stay."""

    @property
    def kept(self) -> Mapping[tuple[str, int], tuple[int, ...]]: ...


Measured = Cuts | Mapping[str, int] | BoolArray
"""A measured network: a plan, widths by family name (absent ones are whole), or a mask."""


@dataclass(frozen=True)
class FittedEnergy:
    """Energy as a₀ + Σ aⱼ sⱼ sⱼ₊₁ of one network; the resource that ``fit_energy`` gives.

    ``constant`` is a₀ in pJ and ``prices`` the aⱼ in pJ by the channel vectors whose kept sizes
    are multiplied: those that the MACs of a layer have. ``error`` is that of measurements which
    the fit did not see: the root mean square of (predicted - measured) / measured.
    """

    constant: float
    prices: tuple[tuple[tuple[int, ...], float], ...]
    error: float
    measurements: int
    trace: str = field(repr=False)
    name = "energy"
    unit = "pJ"

    def bind(self, graph: ChannelGraph) -> BoundCost:
        """The cost; ``InputError`` for a graph of another network, or traced otherwise."""
        if _digest(graph) != self.trace:
            raise InputError("the energy was fitted to another network, expected this graph's")
        prices = {(): Fraction(self.constant)}
        return priced(prices | {term: Fraction(price) for term, price in self.prices}, graph)


def fit_energy(
    graph: ChannelGraph, measurements: Iterable[tuple[Measured, float]], *, seed: int = 0
) -> FittedEnergy:
    """Fit E = a₀ + Σ aⱼ sⱼ sⱼ₊₁ to ``measurements``: pairs of what was measured, and joules.

    What was measured is a plan, a dictionary of widths by family name (``{}`` is the whole
    network), or a mask, bool [prunable]. The sum goes over the convolutions and matrix products,
    and sⱼ, sⱼ₊₁ are the channels that they read and write. Coefficients are the non-negative ones
    of least squares, so that the energy never falls where a width grows. The error is found by
    cross-validation with up to ten parts, drawn with ``seed``.

    Of widths the first groups of each family are kept, which costs as much as any others. Raises
    ``InputError`` for fewer than four measurements and for what doesn't fit the graph.

    Source: Yang, Zhu, Liu, "ECC: platform-independent energy-constrained deep neural network
    compression via a bilinear regression model", 2018, arXiv 1812.01803, equation 2.

    Example:
        energy = lp.fit_energy(graph, [({}, 0.0041), (half, 0.0019), …])
        plan = lp.rank(graph, saliency, lp.Budget(energy="60%"), resources=[energy])
    """
    instance("the graph", graph, ChannelGraph, "a ChannelGraph, such as lcprune.trace gives")
    integer("seed", seed, 0)
    masks, joules = _read(graph, measurements)
    terms = sorted(total((op.coefficient, op.factors) for op in graph.ops))
    vectors = sorted({vector for term in terms for vector in term})
    counts = CountMatrix([graph.vectors[vector] for vector in vectors], graph.prunable)
    row = {vector: i for i, vector in enumerate(vectors)}
    products = Sums([{tuple(row[v] for v in term): 1} for term in terms])
    kinds = len(counts.populations)
    kept = [np.bincount(counts.signatures[mask], minlength=kinds) for mask in masks]
    whole = products(counts.counts(counts.populations))
    sizes = products(counts.counts(np.stack(kept, axis=1))).T / whole
    shares = np.column_stack([np.ones(len(masks)), sizes])
    order = np.random.default_rng(seed).permutation(len(joules))
    errors = np.empty(len(joules))
    for part in np.array_split(order, min(_FOLDS, len(order))):
        rest = np.setdiff1d(order, part)
        errors[part] = shares[part] @ _non_negative(shares[rest], joules[rest]) / joules[part] - 1
    constant, *prices = (_non_negative(shares, joules) * _PICOJOULES).tolist()
    return FittedEnergy(
        constant=constant,
        prices=tuple(
            (term, price / size)
            for term, price, size in zip(terms, prices, whole.tolist(), strict=True)
            if price
        ),
        error=float(np.sqrt(np.mean(errors**2))),
        measurements=len(joules),
        trace=_digest(graph),
    )


def _non_negative(shares: FloatArray, joules: FloatArray) -> FloatArray:
    from scipy.optimize import nnls

    scale = joules.max()
    found: FloatArray = nnls(shares, joules / scale, maxiter=100 * shares.shape[1])[0] * scale
    return found


def _read(graph: ChannelGraph, measurements: object) -> tuple[list[BoolArray], FloatArray]:
    if not is_iterable(measurements):
        raise refused("measurements", measurements, "pairs of a plan or widths, and joules")
    pairs = list(measurements)  # type: ignore[call-overload]
    masks, joules = [], []
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise refused("a measurement", pair, "a pair of a plan or widths, and joules")
        masks.append(_mask(graph, pair[0]))
        joules.append(number("the energy of a measurement", pair[1], more_than=0, most=1e6))
    if len(pairs) < _FEWEST:
        raise InputError(f"{len(pairs)} measurements, expected at least {_FEWEST}")
    return masks, np.array(joules)


def _mask(graph: ChannelGraph, measured: Any) -> BoolArray:
    """The groups that a measured network has."""
    if isinstance(measured, np.ndarray):
        check_mask(measured, graph.prunable)
        return measured
    if isinstance(measured, Mapping):
        return _of_widths(graph, measured)
    kept = getattr(measured, "kept", None)
    if not isinstance(kept, Mapping):
        raise refused("what was measured", measured, "a plan, widths by family name, or a mask")
    if getattr(measured, "network", "") not in ("", graph.network):
        raise InputError("a measured plan is for another network than the graph")
    keep = np.ones(graph.prunable, dtype=np.bool_)
    for (tensor, dim), indices in kept.items():
        try:
            channels = graph.dimension(tensor, dim).channels
            removed: IntArray = np.delete(channels, list(indices))
        except (InputError, IndexError):
            raise InputError(
                f"a measured plan cuts dimension {dim} of {shown(tensor)}, expected one of a"
                " plan of this graph"
            ) from None
        keep[removed[(removed >= 0) & (removed < graph.prunable)]] = False
    return keep


def _of_widths(graph: ChannelGraph, widths: Mapping[Any, Any]) -> BoolArray:
    families = {family.name: family for family in graph.families}
    keep = np.ones(graph.prunable, dtype=np.bool_)
    for name, width in widths.items():
        if name not in families:
            raise InputError(f"width of {shown(name)}, expected the name of a family of the graph")
        groups = families[name].groups
        keep[list(groups[integer(f"the width of {name}", width, 0, len(groups)) :])] = False
    return keep


def _digest(graph: ChannelGraph) -> str:
    """Of what the prices speak of: layers, and the sizes of the vectors that they multiply."""
    layers = [(op.coefficient, op.factors) for op in graph.ops if op.coefficient]
    sizes = [len(vector) for vector in graph.vectors]
    return hashlib.sha256(repr((graph.network, layers, sizes)).encode()).hexdigest()
