"""Which structures of a model come in one piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medt.core import Cancel, Progress, silent
from napari_medt.engine.pieces import is_one_piece, largest_part
from napari_medt.engine.running import predict
from napari_medt.measure import count
from napari_medt.training.data import load
from napari_medt.training.datasets import DataSet
from napari_medt.training.recipe import Recipe

if TYPE_CHECKING:
    from napari_medt.zoo.model import Model


def in_one_piece(
    model: Model, recipe: Recipe, images: DataSet, *, progress: Progress | None = None, cancel: Cancel | None = None
) -> tuple[str, ...]:
    """Structures that are in one piece in every validation image, and of which the largest part alone is more often right.

    That is the question nnU-Net asks of its own results (Isensee et al. 2021, Nature Methods 18): does the mean Dice grow?

    Parameters
    ----------
    model
        As it was trained by `recipe`.
    images
        With their split; only the validation side is looked at.

    Returns
    -------
    tuple of str
        Names of classes; empty where structures overlap or no image is for validation.
    """
    cases = [] if recipe.overlapping else images.on("validation")
    names = dict(enumerate(recipe.classes[1:], start=1))
    gains = dict.fromkeys(names, 0.0)
    report = progress or silent
    for done, case in enumerate(cases):
        report(done, len(cases), "Looking for stray parts")
        image, reference = load(case, recipe, rule=images.rule)
        names = {value: name for value, name in names.items() if is_one_piece(reference == value)}
        if not names:
            break
        labels = predict(model, image, cancel=cancel).labels
        for value in names:
            found, true = labels == value, reference == value
            gains[value] += count(largest_part(found), true).dice - count(found, true).dice
    return tuple(name for value, name in names.items() if gains[value] > 0)
