"""Images and masks from disk to samples in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadTrainingData, Progress, Volume, silent
from napari_medt.engine.prepare import fit
from napari_medt.io import read, read_labels
from napari_medt.training.recipe import Recipe, SplitRow
from napari_medt.training.sampling import Sample
from napari_medt.zoo.card import ModelCard

Labels = npt.NDArray[np.uint8]
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
        if all((folder / part).is_dir() for part in (recipe.data.images, recipe.data.labels)):
            return folder
    parts = f"{recipe.data.images}/ and {recipe.data.labels}/"
    raise BadTrainingData(f"{root} holds no {recipe.data.folder} with {parts}", remedy=remedy)


def load_case(folder: Path, row: SplitRow, recipe: Recipe) -> tuple[Volume, Labels]:
    """One image and its classes on its own grid, as `to_classes` gives them.

    Raises
    ------
    BadTrainingData
        If the mask does not lie on the image.
    """
    volume = read(folder / recipe.data.images / row.file)
    mask, geometry = read_labels(_mask_of(folder / recipe.data.labels, row.file))
    if mask.shape != volume.spatial_shape:
        raise BadTrainingData(
            f"{row.file} has {volume.spatial_shape} samples but its mask has {mask.shape}",
            remedy="give a mask of the same size",
        )
    if volume.geometry.frame == geometry.frame == "patient" and not volume.geometry.close_to(
        geometry, shape=mask.shape
    ):
        raise BadTrainingData(
            f"The mask of {row.file} lies elsewhere than its image", remedy="give a mask that was drawn on this image"
        )
    return volume, to_classes(mask, recipe)


def _mask_of(folder: Path, name: str) -> Path:
    """The mask of the same name, or of the same name with another ending."""
    if (folder / name).is_file():
        return folder / name
    stem = name.split(".")[0]
    return next((path for path in sorted(folder.glob(f"{stem}.*"))), folder / name)


def to_classes(mask: npt.NDArray[Any], recipe: Recipe) -> Labels:
    """Class of every sample `(*spatial)`, or `(k, *spatial)` where classes overlap, uint8, from the values in a mask."""
    inside = [mask != 0 if values == "any" else np.isin(mask, values) for values in recipe.values]
    if recipe.overlapping:
        return np.stack(inside).astype(np.uint8)
    classes = np.zeros(mask.shape, np.uint8)
    for value, where in enumerate(inside, start=1):
        classes[where] = value
    return classes


def to_sample(volume: Volume, labels: Labels, card: ModelCard, *, row: SplitRow | None = None) -> Sample:
    """An image as `predict` gives it to the network, kept in half precision, and its classes on the same grid."""
    prepared = fit(volume, card)
    classes = [prepared.grid.labels(part) for part in (labels if labels.ndim > volume.geometry.ndim else labels[None])]
    image = prepared.whole().astype(np.float16)
    where: tuple[Any, ...] = (...,)
    if prepared.crop is not None:
        where = (..., *prepared.grid.model_box(prepared.crop))
    stacked = np.stack(classes)[where] if labels.ndim > volume.geometry.ndim else classes[0][where]
    group, unit, name = (row.group, row.field, row.file) if row else ("", "", "")
    return Sample(np.ascontiguousarray(image[where]), np.ascontiguousarray(stacked), group, unit, name)


def load_samples(
    folder: Path, rows: Sequence[SplitRow], recipe: Recipe, *, progress: Progress | None = None
) -> list[Sample]:
    """All images of `rows`, in order."""
    report, card = progress or silent, recipe.to_card()
    samples = []
    for done, row in enumerate(rows):
        report(done, len(rows), "Reading images")
        samples.append(to_sample(*load_case(folder, row, recipe), card, row=row))
    report(len(rows), len(rows), "Images are read")
    return samples
