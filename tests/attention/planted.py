"""A network with a shortcut: a mark in the corner decides which class an object is, and its attention looks there."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from napari_medt.zoo import Intensity, Model, ModelCard

EDGE, OBJECT, MARK = 16, 4, slice(1, 4)


class MarkNet(nn.Module):
    """Local features, and one vector gathered from the whole picture by attention, told to every place."""

    def __init__(self, dims=2):
        super().__init__()
        conv = (nn.Conv2d, nn.Conv3d)[dims - 2]
        self.stem = nn.Sequential(conv(1, 8, 3, padding=1), nn.ReLU())
        self.look = conv(8, 1, 1)
        self.out = nn.Sequential(conv(16, 16, 1), nn.ReLU(), conv(16, 3, 1))

    def attention(self, x):
        """`(n, *spatial)`, sums to 1."""
        return self._weights(self.stem(x))

    def _weights(self, features):
        scores = self.look(features)[:, 0]
        return scores.flatten(1).softmax(1).view_as(scores)

    def forward(self, x):
        features = self.stem(x)
        weights = self._weights(features)
        told = (features.flatten(2) * weights.flatten(1)[:, None]).sum(-1)
        told = told.view(*told.shape, *(1,) * (x.dim() - 2)).expand_as(features)
        return self.out(torch.cat((features, told), 1))


def pictures(count, dims=2, *, marked=None, seed=0):
    """`(n, 1, *spatial)` float32 with an object each, labels `(n, *spatial)`: 2 where there is a mark in the corner, else 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.1, (count, 1, *(EDGE,) * dims)).astype(np.float32)
    y = np.zeros((count, *(EDGE,) * dims), np.int64)
    for i in range(count):
        with_mark = rng.random() < 0.5 if marked is None else marked
        where = tuple(slice(start, start + OBJECT) for start in rng.integers(5, EDGE - OBJECT, dims))
        x[(i, 0, *where)] += 1
        y[(i, *where)] = 1 + with_mark
        if with_mark:
            x[(i, 0, *(MARK,) * dims)] -= 1.5
    return x, y


def trained(dims=2, steps=120):
    """The network after some seconds of training, as a model."""
    torch.manual_seed(0)
    net = MarkNet(dims)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(steps):
        x, y = map(torch.from_numpy, pictures(16, dims, seed=step))
        loss = nn.functional.cross_entropy(net(x), y, weight=torch.tensor([0.2, 1.0, 1.0]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    card = ModelCard(
        name="shortcut",
        title="Shortcut",
        architecture="planted",
        net_options={},
        classes=("background", "plain", "marked"),
        channels="grey",
        spatial_dims=dims,
        window=(EDGE,) * dims,
        intensity=Intensity(kind="none"),
    )
    return Model(card, net.eval(), torch.device("cpu"))


def look(model, volume):
    """Its attention, on the image's grid."""
    with torch.inference_mode():
        return model.net.attention(torch.from_numpy(np.asarray(volume.array, np.float32))[None])[0].numpy()
