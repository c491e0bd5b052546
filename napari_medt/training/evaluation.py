"""Scores of a model on images with known masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadTrainingData, Cancel, MedtError, Progress, Volume, silent
from napari_medt.engine.running import predict
from napari_medt.measure import METRICS, Overlap, compare, count
from napari_medt.zoo.card import Score

if TYPE_CHECKING:
    import pandas as pd

    from napari_medt.zoo.model import Model

COUNTS = ["both", "only_prediction", "only_reference"]


def evaluate(
    model: Model,
    cases: Iterable[tuple[Volume | npt.ArrayLike, npt.ArrayLike]],
    *,
    names: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    metrics: Sequence[str] = ("dice", "iou"),
    tolerance: float = 1.0,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> pd.DataFrame:
    """Compare a model's masks with known ones.

    Parameters
    ----------
    model
        From `load_model`.
    cases
        Pairs of image and reference mask, with the model's label values; where structures overlap, `(k, *spatial)`, a mask
        for each.
    names, groups
        One a case, for the table.
    metrics
        Names in `napari_medt.measure.METRICS`, such as `"hd95"` or `"surface_dice"`.
    tolerance
        Of the surface Dice; as all lengths in the unit of the image, which is mm for a scan.

    Returns
    -------
    pandas.DataFrame
        One row a case and class: `name`, `group`, `class`, a column for each of `metrics`, and the pixel counts `both`,
        `only_prediction`, `only_reference`. Where neither mask has the class, scores are the best there are; where only one
        has it, overlaps are 0 and distances infinite.

    Raises
    ------
    MedtError
        If there is no such measure.
    BadTrainingData
        If a mask has another shape than its image.
    """
    import pandas as pd

    report = progress or silent
    if unknown := [name for name in metrics if name not in METRICS]:
        raise MedtError(f"There is no measure {', '.join(unknown)}", remedy=f"choose from {', '.join(METRICS)}")
    cases = list(cases)
    rows = []
    for index, (image, reference) in enumerate(cases):
        report(index, len(cases), "Evaluating")
        prediction = predict(model, image, cancel=cancel)
        labels, geometry = prediction.labels, prediction.geometry
        truth = np.asarray(reference)
        structures = prediction.structures
        wanted = labels.shape if structures is None else structures.shape
        if truth.shape != wanted:
            raise BadTrainingData(f"The mask of case {index + 1} has {truth.shape} pixels but its image has {wanted}")
        for value, name in enumerate(model.card.classes[1:], start=1):
            found, true = labels == value, truth == value
            if structures is not None:
                found, true = structures[value - 1], truth[value - 1] != 0
            overlap = count(found, true)
            rows.append(
                {
                    "name": names[index] if names else str(index + 1),
                    "group": groups[index] if groups else "",
                    "class": name,
                    **compare(
                        found,
                        true,
                        spacing=geometry.spacing,
                        units=geometry.units,
                        metrics=metrics,
                        tolerance=tolerance,
                    ),
                    **{column: getattr(overlap, column) for column in COUNTS},
                }
            )
    report(len(cases), len(cases), "Evaluated")
    return pd.DataFrame(rows)


def to_scores(table: pd.DataFrame, dataset: str) -> tuple[Score, ...]:
    """Scores for a card from a table of `evaluate`: one for each group, one for each of several structures, and one for all."""
    structures = table["class"].unique()
    parts = [_score(part, dataset, group=str(group)) for group, part in table.groupby("group") if group]
    if len(structures) > 1:
        parts += [_score(table[table["class"] == name], dataset, structure=str(name)) for name in structures]
    return (*parts, _score(table, dataset))


def _score(part: pd.DataFrame, dataset: str, *, group: str = "all", structure: str = "") -> Score:
    pooled = Overlap(*(int(part[column].sum()) for column in COUNTS))
    more: dict[str, Any] = {}
    if "hd95" in part:
        both = (part["both"] + part["only_prediction"] > 0) & (part["both"] + part["only_reference"] > 0)
        finite = part["hd95"][both]
        one = part["hd95"] == np.inf
        more = {"hd95": round(float(finite.mean()), 2) if len(finite) else None, "missed": int(one.sum())}
    return Score(
        dataset=dataset,
        group=group,
        structure=structure,
        images=part["name"].nunique(),
        dice=round(float(part["dice"].mean()), 4),
        iou=round(float(part["iou"].mean()), 4),
        f1=round(pooled.dice, 4),
        **more,
    )
