"""A model ready to run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from napari_medt.zoo.card import ModelCard


@dataclass(frozen=True, eq=False)
class Model:
    """A card and its network with weights, in evaluation mode on a device; the rooms act on it.

    Attributes
    ----------
    card
        What the model is.
    net
        `(n, c, *spatial)` float32 to logits `(n, classes, *spatial)`, any size.
    device
        Where the network's weights lie.
    """

    card: ModelCard
    net: torch.nn.Module
    device: torch.device
