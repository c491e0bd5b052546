"""Small models with random weights, and a network whose attention is known beforehand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_medt.nets import create_net
from napari_medt.nets.capture import Recorder
from napari_medt.nets.states import AttentionSource, DotState, GateState
from napari_medt.zoo import Intensity, Model, ModelCard

OPTIONS = {
    "attention-unet": {"channels": (4, 8, 16, 32)},
    "u-transformer": {"channels": (8, 16, 32), "heads": 2},
    "unetr": {"embed": 16, "heads": 2, "hidden": 16, "width": 4},
    "guided-attention": {"width": 8, "stem": 8, "blocks": (1, 1, 1, 1), "groups": 4, "base_width": 32},
    "fine": {"width": 8, "heads": (1, 2, 2, 2), "drop_path": 0.0, "volume_grid": (1, 2, 2)},
    "glam": {"width": 8, "heads": (1, 2, 2, 2), "drop_path": 0.0, "window_tokens": 2},
}
SIZED = ("axial-unet", "gated-axial-unet", "logo", "medt", "unetr", "fine")


def as_model(net, window, *, architecture="attention-unet", channels="grey", **entries):
    """A model around a network."""
    card = ModelCard(
        name="random",
        title="Random weights",
        architecture=architecture,
        net_options={},
        classes=("background", "object"),
        channels=channels,
        spatial_dims=len(window),
        window=window,
        intensity=Intensity(kind="unit"),
        **entries,
    )
    return Model(card, net.eval(), torch.device("cpu"))


@pytest.fixture(scope="session")
def make_model():
    """A model of an architecture with random weights and a small window."""

    def make(architecture, window, **entries):
        window = (window, window) if isinstance(window, int) else window
        channels = entries.pop("channels", "rgb" if architecture in ("medt", "logo") else "grey")
        options = dict(OPTIONS.get(architecture, {}))
        if architecture in SIZED:
            options["img_size"] = window
        if architecture in ("attention-unet", "u-transformer", "unetr"):
            options["spatial_dims"] = len(window)
        torch.manual_seed(0)
        net = create_net(architecture, in_channels=3 if channels == "rgb" else 1, **options)
        for parameter in net.parameters():
            if parameter.ndim < 3:  # convolutions have random weights already
                parameter.data += (0.2 if parameter.ndim < 2 else 0.1) * torch.randn_like(parameter)
        return as_model(net, window, architecture=architecture, channels=channels, **entries)

    return make


class _Shows(Recorder):
    def forward(self, state):
        if self.seen is not None:
            self.seen.append(state)


class Probe(nn.Module):
    """Its gate is the image itself; every place looks at the brightest place of its window, of cells of two voxels."""

    multiple = 2

    def __init__(self):
        super().__init__()
        self.gate, self.bright = _Shows(), _Shows()

    def forward(self, x):
        self.gate(GateState(x[:, :1]))
        pool = functional.avg_pool2d if x.ndim == 4 else functional.avg_pool3d
        cells = pool(x[:, :1], 2)
        grid = tuple(cells.shape[2:])
        keys = cells.flatten(2).mT[:, None]
        self.bright(DotState(torch.ones_like(keys), keys, grid, grid, 200.0))
        return torch.cat((x[:, :1], x[:, :1]), 1)

    def attention_sources(self):
        """The gate and the bright place."""
        gate, bright = AttentionSource("gate", "gate", 1, 0), AttentionSource("bright", "position", 1, 1)
        return {gate: self.gate, bright: self.bright}


@pytest.fixture(scope="session")
def make_probe():
    """A model of the network whose attention is known."""
    return lambda window, **entries: as_model(Probe(), window, **entries)
