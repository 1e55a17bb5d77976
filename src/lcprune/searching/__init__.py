"""Finding the plan that loses least: strategies, the journal, and the loop."""

from lcprune.searching._auto import Auto, between
from lcprune.searching._evolution import Evolution
from lcprune.searching._executor import Evaluation, Executor, InProcess, Job, Work, Workers
from lcprune.searching._journal import Ask, Journal, JournalRecord, read_journal
from lcprune.searching._random import RandomSearch
from lcprune.searching._ray import RayExecutor
from lcprune.searching._result import SearchProgress, SearchResult, Trial
from lcprune.searching._search import STRATEGIES, choose_strategy, search
from lcprune.searching._strategy import Candidate, Strategy, trial_generator

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
    "between",
    "choose_strategy",
    "read_journal",
    "search",
    "trial_generator",
]
