"""Images and masks from disk to samples in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_medt.core import BadTrainingData, Progress, Volume, silent
from napari_medt.engine.prepare import normalise
from napari_medt.io import read, read_labels
from napari_medt.training.recipe import Recipe, SplitRow
from napari_medt.training.sampling import Sample
from napari_medt.zoo.card import Intensity

DATA_VARIABLE = "NAPARI_MEDT_DATA"


def find_data(recipe: Recipe, data: Path | None = None) -> Path:
    """The folder with `images/` and `labels/`: below `data`, or below the folder that NAPARI_MEDT_DATA names.

    Raises
    ------
    BadTrainingData
        If it is not there; says where the images can be had.
    """
    root = data or (Path(os.environ[DATA_VARIABLE]) if DATA_VARIABLE in os.environ else None)
    remedy = f"get {recipe.data.source} and give its folder with --data or {DATA_VARIABLE}"
    if root is None:
        raise BadTrainingData(f"The recipe {recipe.name} needs the images of {recipe.data.folder}", remedy=remedy)
    for folder in (root / recipe.data.folder, root):
        if (folder / "images").is_dir() and (folder / "labels").is_dir():
            return folder
    raise BadTrainingData(f"{root} holds no {recipe.data.folder} with images/ and labels/", remedy=remedy)


def load_case(folder: Path, row: SplitRow) -> tuple[Volume, np.ndarray]:
    """One image as a volume and its mask `(y, x)` uint8, 1 where any object is."""
    volume = read(folder / "images" / row.file)
    labels, _ = read_labels(folder / "labels" / row.file)
    if labels.shape != volume.spatial_shape:
        raise BadTrainingData(
            f"{row.file} has {volume.spatial_shape} pixels but its mask has {labels.shape}",
            remedy="give a mask of the same size",
        )
    return volume, (labels > 0).astype(np.uint8)


def to_sample(
    volume: Volume, labels: np.ndarray, *, channels: str, intensity: Intensity, group: str, field: str
) -> Sample:
    """An image as `engine.prepare` gives it to the network, kept in half precision."""
    array = volume.array[:3]
    if channels == "grey" and len(array) > 1:
        array = array.mean(0, keepdims=True, dtype=np.float32)
    image = normalise(array, intensity)
    if channels == "rgb" and len(image) == 1:
        image = np.repeat(image, 3, axis=0)
    return Sample(image.astype(np.float16), labels, group, field)


def load_samples(
    folder: Path, rows: Sequence[SplitRow], recipe: Recipe, *, progress: Progress | None = None
) -> list[Sample]:
    """All images of `rows`, in order."""
    report = progress or silent
    samples = []
    for done, row in enumerate(rows):
        report(done, len(rows), "Reading images")
        volume, labels = load_case(folder, row)
        samples.append(
            to_sample(
                volume, labels, channels=recipe.channels, intensity=recipe.intensity, group=row.group, field=row.field
            )
        )
    report(len(rows), len(rows), "Images are read")
    return samples
