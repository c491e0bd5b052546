"""Images and masks from disk to samples in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadTrainingData, Cancel, MedtError, Progress, Volume, silent
from napari_medt.engine.prepare import fit
from napari_medt.training.brats import check_names, check_places, check_values, outer_faces
from napari_medt.training.datasets import Case, DataSet, MaskRule, Side, find_cases, load_case
from napari_medt.training.recipe import Recipe
from napari_medt.training.sampling import Sample
from napari_medt.training.splits import apply_split
from napari_medt.zoo.card import ModelCard

Labels = npt.NDArray[np.uint8]
DATA_VARIABLE = "NAPARI_MEDT_DATA"


def find_data(recipe: Recipe, data: Path | None = None, *, beside: Path) -> DataSet:
    """The cases of a recipe, each on its side of the split.

    Parameters
    ----------
    recipe
        What to look for.
    data
        The folder of the images, or one that holds it; by default the one that NAPARI_MEDT_DATA names.
    beside
        The folder of the recipe, where its split lies.

    Raises
    ------
    BadTrainingData
        If the images are not there, with the place where they can be had; if the split does not fit them.
    """
    how = recipe.data
    root = data or (Path(os.environ[DATA_VARIABLE]) if DATA_VARIABLE in os.environ else None)
    remedy = f"get {how.source} and give its folder with --data or {DATA_VARIABLE}"
    if root is None:
        root = Path(how.folder)
        if not root.is_absolute():
            raise BadTrainingData(f"The recipe {recipe.name} needs the images of {how.folder}", remedy=remedy)
    folder = root / how.folder if (root / how.folder).is_dir() else root
    try:
        found = find_cases(folder, how.layout, images=how.images, labels=how.labels, rule=how.rule)
    except BadTrainingData as error:
        raise BadTrainingData(f"{root} holds no {how.folder}: {error.what}", remedy=remedy) from error
    if how.scheme:
        check_names(how.scheme, found.classes)
    if not how.split:
        return found
    found = apply_split(found, beside / how.split)
    for problem in found.problems:
        if problem.kind in (
            "row without files",
            "side",
        ):  # scores on a part of the held-out images would not be the recipe's
            raise BadTrainingData(problem.what, remedy=problem.remedy)
    return found


def load(case: Case, recipe: Recipe, *, rule: MaskRule = "classes") -> tuple[Volume, Labels]:
    """One image and its classes on its own grid, as `to_classes` gives them."""
    volume, mask = _read(case, recipe, rule)
    return volume, to_classes(mask, recipe)


def _read(case: Case, recipe: Recipe, rule: MaskRule) -> tuple[Volume, npt.NDArray[Any]]:
    """One image and its mask as it is."""
    try:
        volume, mask = load_case(case, rule=rule)
    except MedtError as error:
        raise BadTrainingData(f"The case {case.name} cannot be used: {error.what}", remedy=error.remedy) from error
    if recipe.data.scheme:
        check_values(recipe.data.scheme, mask, case.name)
    return volume, mask


def to_classes(mask: npt.NDArray[Any], recipe: Recipe) -> Labels:
    """Class of every sample `(*spatial)`, or `(k, *spatial)` where classes overlap, uint8, from the values in a mask."""
    inside = [mask != 0 if values == "any" else np.isin(mask, values) for values in recipe.values]
    if recipe.overlapping:
        return np.stack(inside).astype(np.uint8)
    classes = np.zeros(mask.shape, np.uint8)
    for value, where in enumerate(inside, start=1):
        classes[where] = value
    return classes


def to_sample(volume: Volume, labels: Labels, card: ModelCard, *, case: Case | None = None) -> Sample:
    """An image as `predict` gives it to the network, kept in half precision, and its classes on the same grid."""
    prepared, overlapping = fit(volume, card), labels.ndim > volume.geometry.ndim
    image = prepared.whole().astype(np.float16)
    classes = np.stack([prepared.grid.labels(part) for part in (labels if overlapping else labels[None])])
    if prepared.crop is not None:
        where = (slice(None), *prepared.grid.model_box(prepared.crop))
        image, classes = image[where], classes[where]
    group, unit, name = (case.group, case.unit, case.name) if case else ("", "", "")
    stored = np.ascontiguousarray(classes if overlapping else classes[0])
    return Sample(np.ascontiguousarray(image), stored, group, unit, name)


def load_samples(
    dataset: DataSet, side: Side, recipe: Recipe, *, progress: Progress | None = None, cancel: Cancel | None = None
) -> list[Sample]:
    """All images of one side of the split, in order.

    Raises
    ------
    BadTrainingData
        If an image or its mask cannot be used, masks do not follow the recipe's scheme, or none on the training side shows a
        class that is to be learnt.
    """
    report, card, cases = progress or silent, recipe.to_card(), dataset.on(side)
    samples, scheme = [], recipe.data.scheme
    faces = np.zeros(3, int)
    for done, case in enumerate(cases):
        if cancel is not None:
            cancel.check()
        report(done, len(cases), "Reading images")
        volume, mask = _read(case, recipe, dataset.rule)
        samples.append(to_sample(volume, to_classes(mask, recipe), card, case=case))
        if scheme:
            faces += outer_faces(mask)
    if scheme:
        check_places(scheme, faces)
    if samples and side == "train":
        _check_classes(samples, recipe)
    report(len(cases), len(cases), "Images are read")
    return samples


def _check_classes(samples: Sequence[Sample], recipe: Recipe) -> None:
    """Values of masks that make up no class are background: where they all are, nothing would be learnt and nobody told."""
    shown = {place for sample in samples for place in sample.places}
    absent = [
        name for place, name in enumerate(recipe.classes[1:], 0 if recipe.overlapping else 1) if place not in shown
    ]
    if absent:
        raise BadTrainingData(
            f"No mask that is learnt from shows the class {', '.join(absent)}",
            remedy="say under data.values in the recipe which numbers of the masks make up each class, or take it out",
        )
