"""Data sets for classification, in memory."""

from lcprune.data._augment import AugmentedBatches
from lcprune.data._load import load_data
from lcprune.data._split import SearchSplit, search_split
from lcprune.data._values import Augmentation, Data, Images

__all__ = [
    "Augmentation",
    "AugmentedBatches",
    "Data",
    "Images",
    "SearchSplit",
    "load_data",
    "search_split",
]
