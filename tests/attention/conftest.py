"""Small models with random weights."""

from __future__ import annotations

import pytest
import torch

from napari_medt.nets import create_net
from napari_medt.zoo import Intensity, Model, ModelCard


@pytest.fixture(scope="module")
def make_model():
    """A model of an architecture with random weights and a small window."""

    def make(architecture, window):
        torch.manual_seed(0)
        net = create_net(architecture, img_size=window).eval()
        for parameter in net.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
        card = ModelCard(
            name="random",
            title="Random weights",
            architecture=architecture,
            net_options={"img_size": window},
            classes=("background", "object"),
            channels="rgb",
            window=(window, window),
            intensity=Intensity(kind="unit"),
        )
        return Model(card, net, torch.device("cpu"))

    return make
