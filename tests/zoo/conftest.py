"""A tiny model, its card and its folder."""

from __future__ import annotations

import pytest
import torch

from napari_medt.nets import create_net
from napari_medt.zoo import Intensity, ModelCard, models_folder, save_model

VALUES = {
    "name": "tiny",
    "title": "Tiny model",
    "architecture": "axial-unet",
    "net_options": {"img_size": 32},
    "classes": ("background", "thing"),
    "channels": "rgb",
    "window": (32, 32),
    "intensity": Intensity(kind="unit"),
}


@pytest.fixture
def card():
    """Return a maker of cards: what a test does not name is that of the tiny model."""
    return lambda **changes: ModelCard(**VALUES | changes)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return create_net("axial-unet", img_size=32).eval()


@pytest.fixture(scope="session")
def _saved(tmp_path_factory):
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("saved") / "v1"
    save_model(place, ModelCard(**VALUES), create_net("axial-unet", img_size=32).eval())
    return {path.name: path.read_bytes() for path in place.iterdir()}


@pytest.fixture
def folder(_saved, medt_home):
    """Return the folder of the tiny model's version 1, among the user's models."""
    place = models_folder() / "tiny" / "v1"
    place.mkdir(parents=True)
    for name, content in _saved.items():
        (place / name).write_bytes(content)
    return place
