"""A model whose answer can be computed by hand, and a small real one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_medt.nets import create_net
from napari_medt.zoo import Intensity, Model, ModelCard


class Threshold(nn.Module):
    """Foreground where the mean of the channels exceeds a half."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        mean = x.mean(1, keepdim=True)
        return torch.cat((0.5 - mean, mean - 0.5), 1) * 20 + self.bias


def card(**changes):
    values = {
        "name": "threshold",
        "title": "Threshold",
        "architecture": "axial-unet",
        "net_options": {"img_size": 32},
        "classes": ("background", "thing"),
        "channels": "rgb",
        "window": (32, 32),
        "intensity": Intensity(kind="percentile", low=0, high=100),
    }
    return ModelCard(**values | changes)


@pytest.fixture
def make_card():
    return card


@pytest.fixture
def threshold():
    return Model(card(), Threshold(), torch.device("cpu"))


@pytest.fixture
def real():
    torch.manual_seed(0)
    net = create_net("gated-axial-unet", img_size=32).eval()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return Model(
        card(architecture="gated-axial-unet", net_options={"img_size": 32}, window=(32, 32)), net, torch.device("cpu")
    )
