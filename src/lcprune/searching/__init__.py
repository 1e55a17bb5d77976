"""Finding the compensation that loses least: strategies, the journal, and the loop."""

from lcprune.searching._evolution import Evolution
from lcprune.searching._journal import Journal, JournalRecord, read_journal
from lcprune.searching._random_search import RandomSearch
from lcprune.searching._registry import STRATEGIES, choose_strategy
from lcprune.searching._search import search
from lcprune.searching._strategy import Candidate, Strategy, trial_generator
from lcprune.searching._trial import SearchProgress, SearchResult, Trial

__all__ = [
    "STRATEGIES",
    "Candidate",
    "Evolution",
    "Journal",
    "JournalRecord",
    "RandomSearch",
    "SearchProgress",
    "SearchResult",
    "Strategy",
    "Trial",
    "choose_strategy",
    "read_journal",
    "search",
    "trial_generator",
]
