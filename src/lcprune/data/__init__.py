"""Data sets for classification, in memory or streamed from files."""

from lcprune.data._augment import (
    AugmentedBatches,
    StreamedBatches,
    TrainingBatches,
    ValidationBatches,
    part_of,
    training_batches,
)
from lcprune.data._sets import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    Data,
    ImageFiles,
    Images,
    ImageSet,
    first_pixels,
    standard_augmentation,
    to_device,
)
from lcprune.data._split import SearchSplit, hold_out, search_split
from lcprune.data.layouts import load_data, runs_code

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Augmentation",
    "AugmentedBatches",
    "Data",
    "ImageFiles",
    "ImageSet",
    "Images",
    "SearchSplit",
    "StreamedBatches",
    "TrainingBatches",
    "ValidationBatches",
    "first_pixels",
    "hold_out",
    "load_data",
    "part_of",
    "runs_code",
    "search_split",
    "standard_augmentation",
    "to_device",
    "training_batches",
]
