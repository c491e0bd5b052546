"""Watching a training: scores on whole windows of images it does not learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from napari_medt.measure import count
from napari_medt.nets.layers import with_background
from napari_medt.training.sampling import Sample

TILES = 3  # windows along each axis


def validate(net: nn.Module, samples: Sequence[Sample], window: tuple[int, int]) -> dict[str, float]:
    """Mean Dice over images, by group and as `"all"`, on windows cut side by side from the middle of each image.

    Anything but class 0 counts as found. Empty if there are no images.
    """
    device = next(net.parameters()).device
    dice: dict[str, list[float]] = {}
    for sample in samples:
        images, labels = tiles(sample, window)
        with torch.inference_mode():
            found = with_background(net(images.to(device))).argmax(1).cpu().numpy()
        dice.setdefault(sample.group, []).append(count(found, labels).dice)
    if not dice:
        return {}
    means = {group: float(np.mean(values)) for group, values in sorted(dice.items())}
    return {**means, "all": float(np.mean([value for values in dice.values() for value in values]))}


def number_of_tiles(samples: Sequence[Sample], window: tuple[int, int]) -> int:
    """Windows that `validate` passes through the network."""
    return sum(int(np.prod([_along(*pair) for pair in zip(s.labels.shape, window, strict=True)])) for s in samples)


def _along(size: int, edge: int) -> int:
    return max(1, min(TILES, size // edge))


def tiles(sample: Sample, window: tuple[int, int]) -> tuple[torch.Tensor, np.ndarray]:
    """At most 3 x 3 windows around the middle: `(n, c, *window)` float32 and their classes; smaller images are padded."""
    spans = []
    for size, edge in zip(sample.labels.shape, window, strict=True):
        number = _along(size, edge)
        start = max(0, (size - number * edge) // 2)
        spans.append([slice(start + i * edge, start + (i + 1) * edge) for i in range(number)])
    pad = [(0, max(0, edge - size)) for size, edge in zip(sample.labels.shape, window, strict=True)]
    image = np.pad(sample.image, ((0, 0), *pad), mode="edge")
    mask = np.pad(sample.labels, pad)
    where = [(rows, columns) for rows in spans[0] for columns in spans[1]]
    images = np.stack([image[:, rows, columns] for rows, columns in where]).astype(np.float32)
    return torch.from_numpy(images), np.stack([mask[rows, columns] for rows, columns in where])
