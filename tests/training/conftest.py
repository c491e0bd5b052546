"""Bright discs on a dark ground, a network that learns them in seconds, and a recipe for both."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from imageio.v3 import imwrite
from torch import nn

from napari_medt.nets import registry
from napari_medt.training.sampling import Sample
from napari_medt.zoo import Intensity, Model, ModelCard

RECIPE = """
name = "discs"
title = "Discs"
description = "Finds discs."
architecture = "small"
net_options = { in_channels = 3, num_classes = 2 }
classes = ["background", "disc"]
channels = "rgb"
window = [32, 32]
intensity = { kind = "percentile" }
seed = 1

[data]
folder = "discs"
split = "split.csv"
weights = { bright = 0.5, dark = 0.5 }
values = { disc = "any" }
source = "the image collection DISCS"

[augmentation]
preset = "microscopy"
scale = [0.5, 2.0]
quarter_turns = true
mirror = [1]

[[stages]]
window = 16
batch = 4
steps = 30

[[stages]]
window = 32
batch = 4
steps = 50

[optimisation]
learning_rate = 2e-2
weight_decay = 1e-2
warmup = 5
clip = 5.0
average = 0.9
norm_batches = 10

[card]
modality = "drawings"
training_data = "drawn discs"
attribution = "nobody"
licence = "CC0-1.0"
citation = "none"
intended_use = "tests"
limits = "discs only"
"""


def small_net(img_size=32, in_channels=3, num_classes=2):
    def layer(a, b):
        return nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())

    net = nn.Sequential(layer(in_channels, 8), layer(8, 8), nn.Conv2d(8, num_classes, 1))
    net.in_channels, net.num_classes = in_channels, num_classes
    return net


@pytest.fixture(autouse=True)
def _small_is_an_architecture(monkeypatch):
    defaults = {"img_size": 32, "in_channels": 3, "num_classes": 2}
    info = registry.NetInfo("small", "Two convolutions", 2, 1, "", "", defaults)
    monkeypatch.setitem(registry._NETS, "small", (info, small_net))


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def discs(seed, size=(48, 48), brightness=1.0):
    """`(y, x)` uint8 picture and instance ids, numbered from 1."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: size[0], : size[1]]
    ids = np.zeros(size, np.uint16)
    for number in range(1, 5):
        centre, radius = rng.uniform(0, size, 2), rng.uniform(4, 8)
        ids[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = number
    picture = np.where(ids > 0, 170, 60) + rng.normal(0, 12, size)
    picture = np.clip(picture * brightness, 0, 255)
    return picture.astype(np.uint8), ids


@pytest.fixture
def make_discs():
    return discs


@pytest.fixture
def make_samples():
    """Samples as training holds them, one field of view an image."""

    def make(count, first=0, group="bright", size=(48, 48)):
        made = []
        for seed in range(first, first + count):
            picture, ids = discs(seed, size)
            image = np.repeat(picture[None] / 255, 3, axis=0).astype(np.float16)
            made.append(Sample(image, (ids > 0).astype(np.uint8), group, str(seed)))
        return made

    return make


@pytest.fixture
def recipe_file(tmp_path):
    """A recipe with its split; the images lie in `data/discs` beside it."""
    folder = tmp_path / "recipes"
    images = tmp_path / "data" / "discs"
    for part in (folder, images / "images", images / "labels"):
        part.mkdir(parents=True)
    (folder / "discs.toml").write_text(RECIPE)
    sides = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2
    with (folder / "split.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "group", "field", "split"])
        for number, side in enumerate(sides):
            group = ["bright", "dark"][number % 2]
            picture, ids = discs(number, brightness=0.3 if group == "dark" else 1.0)
            if number % 3 == 0:
                picture = np.stack([picture] * 3, -1)
            imwrite(images / "images" / f"{number}.png", picture)
            imwrite(images / "labels" / f"{number}.png", ids)
            writer.writerow([f"{number}.png", group, number, side])
    return folder / "discs.toml"


@pytest.fixture
def data(recipe_file) -> Path:
    """The data root of `recipe_file`."""
    return recipe_file.parent.parent / "data"


def card(**changes):
    values = {
        "name": "discs",
        "title": "Discs",
        "architecture": "small",
        "net_options": {},
        "classes": ("background", "disc"),
        "channels": "rgb",
        "window": (32, 32),
        "intensity": Intensity(kind="unit"),
    }
    return ModelCard(**values | changes)


@pytest.fixture
def make_model():
    """A model with random weights, or with those of `net`."""

    def make(net=None, **changes):
        if net is None:
            torch.manual_seed(0)
            net = small_net(num_classes=len(changes.get("classes", "ab")))
        return Model(card(**changes), net.eval(), torch.device("cpu"))

    return make


class Threshold(nn.Module):
    """Finds what is brighter than half in the first channel."""

    in_channels, num_classes = 3, 2

    def __init__(self):
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return torch.stack((self.limit - x[:, 0], x[:, 0] - self.limit), dim=1)


@pytest.fixture
def threshold(make_model):
    return make_model(Threshold())
