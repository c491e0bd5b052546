"""Scores of a model on images with known masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadTrainingData, Cancel, MedtError, Progress, Volume, silent
from napari_medt.engine.running import predict
from napari_medt.measure import METRICS, Overlap, compare, count, interval
from napari_medt.zoo.card import Score

if TYPE_CHECKING:
    import pandas as pd

    from napari_medt.zoo.model import Model

HELD_OUT = "held_out.csv"  # in the folder of a run
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
    """Scores for a card from a table of `evaluate`: for each group and for all, of each of several structures and of all."""
    names = table["class"].unique()
    several = names if len(names) > 1 else ()
    groups = [(str(group), part) for group, part in table.groupby("group") if group]
    return tuple(
        to_score(part[part["class"] == name] if name else part, dataset, group=group, structure=str(name))
        for group, part in (*groups, ("all", table))
        for name in (*several, "")
    )


def to_score(part: pd.DataFrame, dataset: str, *, group: str = "all", structure: str = "") -> Score:
    """The score of some rows of `evaluate`: means over the structures of an image, then over images."""
    pooled = Overlap(*(int(part[column].sum()) for column in COUNTS))
    given: dict[str, Any] = _means(part, "dice", digits=4) | _means(part, "iou", digits=4)
    if "hd95" in part:
        both = (part["both"] + part["only_prediction"] > 0) & (part["both"] + part["only_reference"] > 0)
        given |= _means(part[both], "hd95", digits=2) | {"missed": int((part["hd95"] == np.inf).sum())}
    images = part["name"].nunique()
    return Score(dataset=dataset, group=group, structure=structure, images=images, f1=round(pooled.dice, 4), **given)


def _means(part: pd.DataFrame, column: str, *, digits: int) -> dict[str, Any]:
    """The mean over images and its bootstrap interval, as a card names them; nothing where there is no image."""
    if part.empty:
        return {}
    values = part.groupby("name", sort=False)[column].mean().to_numpy()
    ends = interval(values)
    rounded = None if ends is None else tuple(round(end, digits) for end in ends)
    return {column: round(float(values.mean()), digits), f"{column}_interval": rounded}
