"""Networks by name, and weights for them."""

from lcprune.models._cifar_mobilenet import cifar_mobilenet_v2
from lcprune.models._cifar_resnet import cifar_resnet
from lcprune.models._weights import load_weights, state_sha256
from lcprune.models._zoo import build, check_name, model_names, runs_code

__all__ = [
    "build",
    "check_name",
    "cifar_mobilenet_v2",
    "cifar_resnet",
    "load_weights",
    "model_names",
    "runs_code",
    "state_sha256",
]
