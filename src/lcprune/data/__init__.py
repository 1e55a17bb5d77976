"""Data sets for classification, in memory or streamed from files."""

from lcprune.data._augment import AugmentedBatches
from lcprune.data._hold_out import hold_out
from lcprune.data._image_files import ImageFiles
from lcprune.data._load import load_data
from lcprune.data._recipes import standard_augmentation
from lcprune.data._split import SearchSplit, search_split
from lcprune.data._streamed import StreamedBatches
from lcprune.data._training_batches import TrainingBatches, training_batches
from lcprune.data._values import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    Data,
    Images,
    ImageSet,
    first_pixels,
)

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
    "first_pixels",
    "hold_out",
    "load_data",
    "search_split",
    "standard_augmentation",
    "training_batches",
]
