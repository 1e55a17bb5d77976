"""A sample of the zoo: what ``bench/zoo.py`` says of all its networks holds for these anywhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("timm")
pytest.importorskip("torchvision")
sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import zoo
import zoo_models

# One of each way of building a network, the smallest that there is of it.
SAMPLE = {
    "timm/resnet10t": 0.1,
    "timm/seresnet18": 0.1,
    "timm/resnest14d": 0.1,
    "timm/skresnet18": 0.1,
    "timm/res2net50_14w_8s": 0.1,
    "timm/ecaresnet50t": 0.8,
    "timm/nf_regnet_b0": 0.1,
    "timm/regnety_002": 0.1,
    "timm/regnetz_005": 0.1,
    "timm/repvgg_a0": 0.1,
    "timm/gernet_s": 0.1,
    "timm/cs3darknet_focus_s": 0.1,
    "timm/cspresnet50": 0.1,
    "timm/densenet121": 0.1,
    "timm/dla46_c": 0.1,
    "timm/dpn48b": 0.1,
    "timm/ese_vovnet19b_slim": 0.1,
    "timm/ghostnet_050": 0.2,
    "timm/ghostnetv2_100": 0.2,
    "timm/hardcorenas_a": 0.1,
    "timm/hrnet_w18_small": 0.1,
    "timm/mixnet_s": 0.2,
    "timm/mnasnet_small": 0.2,
    "timm/mobilenetv3_small_050": 0.2,
    "timm/mobilenetv4_conv_small": 0.1,
    "timm/rexnet_100": 0.2,
    "timm/selecsls42": 0.1,
    "timm/tf_efficientnet_lite0": 0.1,
    "timm/tinynet_e": 0.2,
    "timm/visformer_tiny": 0.8,
    "timm/convnext_atto": 0.2,
    "timm/convnextv2_atto": 0.2,
    "timm/edgenext_xx_small": 0.5,
    "timm/poolformer_s12": 0.2,
    "timm/inception_next_atto": 0.5,
    "timm/efficientformerv2_s0": 0.5,
    "timm/levit_128s": 0.8,
    "timm/repvit_m0_9": 0.2,
    "timm/starnet_s050": 0.2,
    "timm/fasternet_t0": 0.5,
    "timm/mambaout_femto": 0.5,
    "torchvision/squeezenet1_1": 0.1,
    "torchvision/segmentation/lraspp_mobilenet_v3_large": 0.2,
    "torchvision/detection/ssdlite320_mobilenet_v3_large": 0.2,
}
"""Networks, and the most of the MACs that may be left when every family keeps a tenth."""

DEFAULT = {
    "timm/resnet10t",
    "timm/seresnet18",
    "torchvision/squeezenet1_1",
}
"""Those that every run of the tests examines; the others are thorough."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in DEFAULT else pytest.mark.thorough) for n in SAMPLE],
)
def test_sample(name: str) -> None:
    import timm

    if name.startswith("timm/") and not timm.is_model(name.removeprefix("timm/")):
        pytest.skip(f"timm {timm.__version__} does not know it")
    row = zoo.examine(name)
    assert row["verdict"] in ("exact", "exact except"), row
    assert row["coverage"] <= SAMPLE[name]


def test_the_list_of_networks_holds_the_sample_and_enough_others() -> None:
    names = zoo_models.names()
    assert set(SAMPLE) >= DEFAULT
    assert set(SAMPLE) <= set(names)
    assert len(names) == len(set(names))
    assert sum(name.startswith("timm/") for name in names) >= 400
