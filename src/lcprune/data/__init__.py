"""Data sets for classification."""

from lcprune.data._augment import AugmentedBatches
from lcprune.data._hold_out import hold_out
from lcprune.data._load import load_data
from lcprune.data._split import SearchSplit, search_split
from lcprune.data._training_batches import TrainingBatches, training_batches
from lcprune.data._values import Augmentation, Data, Images, ImageSet, first_pixels

__all__ = [
    "Augmentation",
    "AugmentedBatches",
    "Data",
    "ImageSet",
    "Images",
    "SearchSplit",
    "TrainingBatches",
    "first_pixels",
    "hold_out",
    "load_data",
    "search_split",
    "training_batches",
]
