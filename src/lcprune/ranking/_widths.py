"""How many groups each family keeps: what plans are made of, in place of scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from lcprune.cost import CostModel
from lcprune.graph import BoolArray, ChannelGraph, FloatArray, IntArray
from lcprune.ranking._blocks import Blocks
from lcprune.ranking._compensation import Compensation


class Widths:
    """Widths, int64 [families], as what a search moves in, and the latents that give them.

    A latent has dead zones, where another number cuts the same, and cliffs, where a little moves
    many channels; widths have neither. ``rungs`` are the widths that each family may have,
    ascending, the last one its size: what ``round_to`` lets it keep. A width keeps the groups with
    the highest scores, so that an order within the family is never changed.

    Example:
        widths = ranker.widths
        narrow = widths.full - 1
        keep = ranker.keep(widths.latent(narrow))
        kept = widths.of(keep)
    """

    def __init__(
        self,
        graph: ChannelGraph,
        cost: CostModel,
        compensation: Compensation,
        blocks: Blocks,
        limits: Mapping[str, int],
    ) -> None:
        self._compensation = compensation
        self._cost = cost
        self._family_of = graph.family_of
        self._rows = [cost.resources.index(name) for name in limits]
        self.limits: IntArray = np.array(list(limits.values()), dtype=np.int64)
        self.rungs = blocks.rungs
        self.full: IntArray = np.array([rungs[-1] for rungs in self.rungs], dtype=np.int64)
        scores = compensation.apply(compensation.identity())
        self._ascending: list[FloatArray] = []
        owners, kinds, tables = [], [], []
        for family in range(len(graph.families)):
            groups = np.flatnonzero(graph.family_of == family)
            groups = groups[np.argsort(scores[groups], kind="stable")]
            self._ascending.append(scores[groups])
            for kind, table in _counts_by_width(cost.signatures[groups[::-1]]):
                owners.append(family)
                kinds.append(kind)
                tables.append(table)
        # Row i of the table: how many groups of kind i the family ``owners[i]`` keeps, by width.
        self._owners, self._kinds = np.array(owners), np.array(kinds)
        self._starts = np.cumsum([0, *map(len, tables)])[:-1]
        self._table = np.concatenate(tables)

    def of(self, keep: BoolArray) -> IntArray:
        """The widths of a mask, bool [prunable]."""
        return np.bincount(self._family_of[keep], minlength=len(self.full))

    def latent(self, widths: IntArray) -> FloatArray:
        """A latent whose scores are above 0 for what ``widths`` keeps, and below for the rest.

        Its plan has these widths if they fit, none could be widened, and the groups of a family
        cost the same; otherwise the cut takes from, or gives back to, those whose scores are
        nearest to 0.
        """
        thresholds = [
            _threshold(ascending, width)
            for ascending, width in zip(self._ascending, widths.tolist(), strict=True)
        ]
        return self._compensation.offset(-np.array(thresholds))

    def costs(self, widths: IntArray) -> IntArray:
        """What widths [families] cost, by bounded resource, in the order of ``limits``.

        [n, families] gives [n, resources].
        """
        values = self._table[self._starts + widths[..., self._owners]]
        kept = np.zeros((len(self._cost.populations), *widths.shape[:-1]), dtype=np.int64)
        np.add.at(kept, self._kinds, values.T)
        return self._cost.of_counts(kept)[self._rows].T

    def fit(self, widths: IntArray) -> BoolArray:
        """Whether widths [families] are within every bound; [n, families] gives [n]."""
        return np.asarray((self.costs(widths) <= self.limits).all(axis=-1))


def _counts_by_width(kinds: IntArray) -> Iterator[tuple[int, IntArray]]:
    """For each kind, how many of the first 0, 1, 2, … of ``kinds`` are of it."""
    for kind in np.unique(kinds):
        yield int(kind), np.concatenate([[0], np.cumsum(kinds == kind)])


def _threshold(ascending: FloatArray, width: int) -> float:
    """A number between the scores that ``width`` keeps and those that it removes."""
    removed = len(ascending) - width
    if removed == 0:
        low, high = ascending[0], ascending[-1]
        return float(low - max(high - low, abs(low), 1.0))
    if width == 0:
        low, high = ascending[0], ascending[-1]
        return float(high + max(high - low, abs(high), 1.0))
    return float((ascending[removed - 1] + ascending[removed]) / 2)
