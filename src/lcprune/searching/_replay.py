"""A strategy as the journal left it."""

from __future__ import annotations

from lcprune.searching._journal_rows import JournalRecord
from lcprune.searching._strategy import Strategy


def replay(record: JournalRecord, strategy: Strategy) -> None:
    """Ask and tell a fresh strategy all that a journal holds, in the order in which it happened.

    What it answers is dropped: what was really tried is in the journal.
    """
    asks = [
        (position if trial.asked_after is None else trial.asked_after, trial.number)
        for position, trial in enumerate(record.trials)
    ]
    asks += [(ask.after, ask.candidate.number) for ask in record.in_flight]
    asks.sort(reverse=True)
    for position, trial in enumerate(record.trials):
        while asks and asks[-1][0] <= position:
            asks.pop()
            strategy.ask()
        strategy.tell(trial.candidate(), trial.loss)
    for _ in asks:
        strategy.ask()
