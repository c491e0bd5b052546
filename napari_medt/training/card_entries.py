"""What a card says that is measured and not written: by which recipe the model came about, and what it learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import napari_medt
from napari_medt.core import Cancel, Progress, Volume, silent
from napari_medt.engine.prepare import axes_for
from napari_medt.training.datasets import DataSet
from napari_medt.training.facts import CaseFacts
from napari_medt.training.recipe import Recipe
from napari_medt.training.survey import look_at_all
from napari_medt.zoo.card import ModelCard

RECIPES = Path(napari_medt.__file__).parents[1] / "recipes"  # of the project, in a checkout of it
MEASURED = ("percentile", "zscore")  # scales that are found from each image by itself, whatever its values are


def name_of(path: Path, recipe: Recipe, *, steps: int) -> str:
    """Which recipe it was, whether one of the project's own, and how many of its steps were gone."""
    own = path.resolve().parent == RECIPES.resolve()
    where = f"recipes/{path.name}" if own else f"{path.name}, which is none of the project's own recipes"
    gone = f"{steps}" if steps == recipe.steps else f"{steps} of its {recipe.steps}"
    return f"{where}, {gone} steps, seed {recipe.seed}"


def learnt_from(
    images: DataSet,
    recipe: Recipe,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """What the images of the training side are like, by entry of the card: usual values, field of view and spacing.

    Parameters
    ----------
    images
        With their split; only the training side is looked at.
    recipe
        Of the model.
    cache
        As for `look_at_all`.

    Returns
    -------
    dict
        `value_range`, where the values matter as they are; `field_of_view_mm` and `training_spacing` of scans, along the axes
        of the model; `training_data`, where the recipe says nothing of it.
    """
    cases = images.on("train")
    found = look_at_all(images, cases=cases, cache=cache, progress=progress or silent, cancel=cancel)
    facts, card = [fact for fact in found if fact.usable], recipe.to_card()
    if not facts:
        return {}
    entries: dict[str, Any] = _lengths(facts, card) if card.spacing is not None else {}
    if card.intensity.kind not in MEASURED:
        lows, highs = zip(*(_range(fact) for fact in facts), strict=True)
        entries["value_range"] = float(np.median(lows)), float(np.median(highs))
    if not card.training_data:
        entries["training_data"] = f"{images.folder.name}, {len(cases)} images"
    return entries


def _range(fact: CaseFacts) -> tuple[float, float]:
    return min(low for low, _ in fact.ranges), max(high for _, high in fact.ranges)


def _lengths(facts: Sequence[CaseFacts], card: ModelCard) -> dict[str, Any]:
    """Medians over the scans, of which each says its spacing; empty if one does not."""
    rows = []
    for fact in facts:
        geometry = fact.geometry
        if geometry.unit_mm is None:
            return {}
        there = Volume(np.broadcast_to(np.uint8(0), (1, *fact.shape)), geometry)
        order = list(axes_for(there, card)[0].order)[-card.spatial_dims :]
        spacing = np.array(geometry.spacing)[order] * geometry.unit_mm
        rows.append((spacing, spacing * np.array(fact.shape)[order]))
    spacing, field = np.median(rows, axis=0)
    rounded = [tuple(float(f"{length:.3g}") for length in lengths) for lengths in (spacing, field)]
    return dict(zip(("training_spacing", "field_of_view_mm"), rounded, strict=True))
