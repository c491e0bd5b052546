"""Watching a training: scores on whole windows of images it does not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from napari_medt.measure import count
from napari_medt.nets.layers import with_background
from napari_medt.training.optimise import forward
from napari_medt.training.sampling import Batch, Sample

TILES = 3  # windows along each axis
BATCH = 8


def validate(
    net: nn.Module, samples: Sequence[Sample], window: tuple[int, ...], *, classes: Sequence[str] = ()
) -> dict[str, float]:
    """Mean Dice over images, by group and as `"all"`, on windows cut side by side from the middle of each image.

    Of an image, it is the mean over the classes beside the background. Where there are several and `classes` names them, there
    is a mean of each under its name too. Empty if there are no images.
    """
    device = next(net.parameters()).device
    dice: dict[str, list[float]] = {}
    rows = []
    for sample in samples:
        images, masks, positions = (torch.split(part, BATCH) for part in tiles(sample, window))
        with torch.inference_mode():
            found = [
                forward(net, *(part.to(device) for part in parts)) for parts in zip(images, positions, strict=True)
            ]
        logits, labels = torch.cat([part.float().cpu() for part in found]), torch.cat(masks)
        if sample.overlapping:
            pairs = [(logits[:, k] > 0, labels[:, k]) for k in range(logits.shape[1])]
        else:
            logits = with_background(logits)
            best = logits.argmax(1)
            pairs = [(best == k, labels == k) for k in range(1, logits.shape[1])]
        rows.append([count(one, other).dice for one, other in pairs])
        dice.setdefault(sample.group, []).append(float(np.mean(rows[-1])))
    if not dice:
        return {}
    means = {group: float(np.mean(values)) for group, values in sorted(dice.items())}
    by_class = dict(zip(classes, np.mean(rows, axis=0).tolist(), strict=True)) if len(classes) > 1 else {}
    return {**by_class, **means, "all": float(np.mean([value for values in dice.values() for value in values]))}


def number_of_tiles(samples: Sequence[Sample], window: tuple[int, ...]) -> int:
    """Windows that `validate` passes through the network."""
    return sum(prod(_along(*pair) for pair in zip(s.shape, window, strict=True)) for s in samples)


def _along(size: int, edge: int) -> int:
    return max(1, min(TILES, size // edge))


def tiles(sample: Sample, window: tuple[int, ...]) -> Batch:
    """At most 3 windows an axis, side by side around the middle; smaller images are padded."""
    spans, middle = [], []
    for size, edge in zip(sample.shape, window, strict=True):
        number = _along(size, edge)
        start = max(0, (size - number * edge) // 2)
        spans.append([slice(start + i * edge, start + (i + 1) * edge) for i in range(number)])
        middle.append(max(size, edge) / 2)
    pad = [(0, max(0, edge - size)) for size, edge in zip(sample.shape, window, strict=True)]
    image = np.pad(sample.image, ((0, 0), *pad), mode="edge").astype(np.float32)
    classes = np.pad(sample.labels, ((0, 0), *pad) if sample.overlapping else pad).astype(np.int64)
    where: list[tuple[Any, ...]] = list(product(*spans))
    centres = np.array([[(part.start + part.stop) / 2 for part in box] for box in where])
    return Batch(
        torch.from_numpy(np.stack([image[(..., *box)] for box in where])),
        torch.from_numpy(np.stack([classes[(..., *box)] for box in where])),
        torch.from_numpy((centres - middle).astype(np.float32)),
    )
