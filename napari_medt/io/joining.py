"""Several files of one patient as the channels of one image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np

from napari_medt.core import BadImage, Volume
from napari_medt.io.resampling import resample


def join_channels(volumes: Sequence[Volume]) -> Volume:
    """Put images of one patient together, channel after channel.

    Parameters
    ----------
    volumes
        In the order wanted. The first gives the grid; others that lie elsewhere are resampled to it, linearly, and a note
        says so.

    Returns
    -------
    Volume
        `(c, *spatial)`. Channels are named by what tells their files' names apart, so that what all have in common, such as
        a patient's number, is left out.

    Raises
    ------
    BadImage
        If there is none, or one lies in another frame, in other units or not where the first one does.
    """
    if not volumes:
        raise BadImage("There are no images to join", remedy="choose the images of one patient")
    first = volumes[0]
    titles = _titles(volumes)
    moved, notes = [first.array], [*first.notes]
    for volume, title in zip(volumes[1:], titles[1:], strict=True):
        same = volume.spatial_shape == first.spatial_shape
        if same and first.geometry.close_to(volume.geometry, shape=first.spatial_shape):
            moved.append(volume.array)
            continue
        if not _overlap(first, volume):
            raise BadImage(
                f"{title} lies outside the first image, so they are not of one examination",
                remedy="choose images of the same patient and region",
            )
        moved.append(resample(volume, first.geometry, first.spatial_shape).array)
        notes.append(f"{title} was made on another grid and has been resampled to that of the first image")
    for volume in volumes[1:]:
        notes += [note for note in volume.notes if note not in notes]
    dtype = np.result_type(*(array.dtype for array in moved))
    joined = np.concatenate([array.astype(dtype, copy=False) for array in moved])
    names = [
        title if len(volume.array) == 1 else f"{title} {name}"
        for volume, title in zip(volumes, titles, strict=True)
        for name in volume.channel_names
    ]
    return replace(first, array=joined, channel_names=tuple(names), notes=tuple(notes), levels=())


def _overlap(first: Volume, other: Volume) -> bool:
    if first.geometry.ndim != other.geometry.ndim or first.geometry.units != other.geometry.units:
        return True  # `resample` says what is wrong
    corners = np.stack(np.meshgrid(*((-0.5, size - 0.5) for size in other.spatial_shape), indexing="ij"), -1)
    places = first.geometry.index(other.geometry.position(corners.reshape(-1, first.geometry.ndim)))
    low, high = places.min(axis=0), places.max(axis=0)
    return bool((high > -0.5).all() and (low < np.asarray(first.spatial_shape) - 0.5).all())


def _titles(volumes: Sequence[Volume]) -> list[str]:
    """Name the images by the words in which the names of their files differ, else number them."""
    words = [re.split(r"[^0-9A-Za-z]+", PurePath(volume.source).name.split(".")[0]) for volume in volumes]
    common = set(words[0]).intersection(*words[1:])
    told = ["_".join(word for word in these if word and word not in common) for these in words]
    if len(volumes) > 1 and all(told) and len(set(told)) == len(told):
        return told
    return [f"channel {i + 1}" for i in range(len(volumes))]
