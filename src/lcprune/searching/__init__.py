"""Finding the compensation that loses least: strategies, the journal, and the loop."""

from lcprune.searching._auto import Auto
from lcprune.searching._evolution import Evolution
from lcprune.searching._executor import Evaluation, Executor, InProcess, Job, Work, Workers
from lcprune.searching._journal import Journal, read_journal
from lcprune.searching._journal_rows import Ask, JournalRecord
from lcprune.searching._random_search import RandomSearch
from lcprune.searching._ray_executor import RayExecutor
from lcprune.searching._registry import STRATEGIES, choose_strategy
from lcprune.searching._replay import replay
from lcprune.searching._search import search
from lcprune.searching._strategy import Candidate, Strategy, trial_generator
from lcprune.searching._trial import SearchProgress, SearchResult, Trial

__all__ = [
    "STRATEGIES",
    "Ask",
    "Auto",
    "Candidate",
    "Evaluation",
    "Evolution",
    "Executor",
    "InProcess",
    "Job",
    "Journal",
    "JournalRecord",
    "RandomSearch",
    "RayExecutor",
    "SearchProgress",
    "SearchResult",
    "Strategy",
    "Trial",
    "Work",
    "Workers",
    "choose_strategy",
    "read_journal",
    "replay",
    "search",
    "trial_generator",
]
