"""Which window of an image is looked at, and which of its samples are asked about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_medt.core import BadImage, Cancel, Progress, Volume
from napari_medt.engine.prepare import Prepared
from napari_medt.engine.testtime import Passes
from napari_medt.engine.windows import Box, pad_to_window, plan_windows
from napari_medt.zoo.card import ModelCard
from napari_medt.zoo.model import Model

Array = npt.NDArray[Any]
LOOKED_THROUGH = 64  # windows that are searched for the structure where nobody says where it is


def _about(middle: Sequence[float], shape: Sequence[int], window: Sequence[int]) -> Box:
    """The window about a place, moved into the image."""
    box = []
    for centre, size, edge in zip(middle, shape, window, strict=True):
        start = min(max(round(float(centre) - (edge - 1) / 2), 0), max(0, size - edge))
        box.append(slice(start, min(start + edge, size)))
    return tuple(box)


def window_of_region(prepared: Prepared, volume: Volume, card: ModelCard, region: Array) -> tuple[Box, Array]:
    """The window that holds most of a region, about its middle where it fits into one."""
    if region.shape != volume.spatial_shape:
        raise BadImage(f"The region has shape {region.shape}, but the image {volume.spatial_shape}")
    mask = prepared.grid.labels(region.astype(bool))
    if not mask.any():
        raise BadImage("The region is empty", remedy="mark what is asked about")
    ends = [np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis))) for axis in range(mask.ndim)]
    first = _about([(along[0] + along[-1]) / 2 for along in ends], mask.shape, card.window)
    box = max((first, *plan_windows(mask.shape, card.window)), key=lambda box: int(np.count_nonzero(mask[box])))
    return box, mask[box]


def window_of_query(prepared: Prepared, volume: Volume, card: ModelCard, query: Sequence[int]) -> tuple[Box, Array]:
    """The window about a place, and the place with its direct neighbours."""
    if len(query) != volume.geometry.ndim or not all(
        0 <= q < n for q, n in zip(query, volume.spatial_shape, strict=True)
    ):
        raise BadImage(f"The point {tuple(query)} lies outside the image of shape {volume.spatial_shape}")
    shape = prepared.spatial_shape
    place = np.round(prepared.geometry.index(volume.geometry.position(query))).astype(int)
    place = np.clip(place, 0, np.array(shape) - 1)
    box = _about(place, shape, card.window)
    inside = np.zeros([part.stop - part.start for part in box], bool)
    inside[tuple(slice(max(0, q - p.start - 1), q - p.start + 2) for q, p in zip(place, box, strict=True))] = True
    return box, inside


def window_of_structure(
    prepared: Prepared, model: Model, structure: int, progress: Progress, cancel: Cancel | None
) -> tuple[Box, Array]:
    """Of windows side by side, that in which the model draws most of the structure."""
    card = model.card
    boxes = plan_windows(prepared.spatial_shape, card.window, overlap=0)
    if len(boxes) > LOOKED_THROUGH:
        raise BadImage(
            f"The image has {len(boxes)} windows, too many to look for the structure",
            remedy="give the region asked about",
        )
    passes, best = Passes(model, model.device), None
    for done, box in enumerate(boxes):
        if cancel is not None:
            cancel.check()
        progress(done, len(boxes), "Looking for the structure")
        window = pad_to_window(prepared.window(box), card.window)
        middles = [b.start + e / 2 - n / 2 for b, e, n in zip(box, card.window, prepared.spatial_shape, strict=True)]
        batch = torch.tensor(window, device=model.device)[None]
        position = torch.tensor([middles], device=model.device)
        found = passes(batch, position, [tuple(part.start for part in box)])[0]
        drawn = found[structure - 1] > 0.5 if card.overlapping else found.argmax(0) == structure
        inside = drawn.cpu().numpy()[tuple(slice(0, part.stop - part.start) for part in box)]
        if best is None or np.count_nonzero(inside) > np.count_nonzero(best[1]):
            best = box, inside
    if best is None or not best[1].any():
        raise BadImage(
            f"The model finds no {card.classes[structure]} here, so there is nothing to explain",
            remedy="give the region asked about",
        )
    return best


def split(index: Array, count: int) -> list[Array]:
    """Which samples make up each of `count` compact parts of nearly the same size; `index` `(n, dims)`."""
    parts = [np.arange(len(index))]
    while len(parts) < 2 ** int(math.log2(count)):
        halves = []
        for part in parts:
            axis = int(np.argmax(np.ptp(index[part], axis=0)))
            halves.extend(np.array_split(part[np.argsort(index[part, axis], kind="stable")], 2))
        parts = halves
    return parts
