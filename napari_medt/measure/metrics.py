"""All measures under one name each, and the comparison of two masks by some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy.typing as npt

from napari_medt.measure.instances import Matches, components, match
from napari_medt.measure.overlap import Overlap, count
from napari_medt.measure.surfaces import Surfaces
from napari_medt.measure.volumes import MM3_PER_ML, relative_difference

Scores = Mapping[str, float | None]
BothEmpty = Literal["agree", "not applicable"]


class Pair:
    """One structure in a prediction and in its reference; what the measures need is computed once, when first needed.

    Parameters
    ----------
    prediction, reference
        `(y, x)` or `(z, y, x)`; anything not zero is inside. With `objects`, each value but 0 is one object; else the
        connected parts are.
    spacing
        One an axis, in `units`.
    units
        `"mm"`, `"um"` or `"px"`.
    tolerance
        Of the surface Dice, in `units`.
    """

    def __init__(
        self,
        prediction: npt.ArrayLike,
        reference: npt.ArrayLike,
        *,
        spacing: Sequence[float],
        units: str = "mm",
        tolerance: float = 1.0,
        objects: bool = False,
    ) -> None:
        self.surfaces = Surfaces(prediction, reference, spacing=spacing)
        self.tolerance = tolerance
        self._given = (prediction, reference) if objects else None
        size = 1.0
        for step in spacing:
            size *= step
        self._size = size / MM3_PER_ML if (units, len(spacing)) == ("mm", 3) else size

    @cached_property
    def overlap(self) -> Overlap:
        """Counts of samples."""
        return count(self.surfaces.prediction, self.surfaces.reference)

    @cached_property
    def matches(self) -> Matches:
        """Counts of objects, matched at an intersection over union of 0.5."""
        if self._given is not None:
            return match(*self._given)
        return match(components(self.surfaces.prediction), components(self.surfaces.reference))

    @property
    def sizes(self) -> tuple[float, float]:
        """Volume of prediction and reference, in ml; in 2D, and in other units than mm, in those of the spacing."""
        overlap = self.overlap
        return (
            (overlap.both + overlap.only_prediction) * self._size,
            (overlap.both + overlap.only_reference) * self._size,
        )


@dataclass(frozen=True)
class Metric:
    """One measure.

    Attributes
    ----------
    name, title
        As it is called in files and options, and in tables.
    compute
        Its value for a pair that is not empty on both sides.
    best
        `1`, where more is better up to 1, or `0`, where 0 is best.
    kind
        Of what it is a number: a `"share"`, a `"length"` or a `"volume"`.
    meaning
        In a few words, with the definition it follows.
    """

    name: str
    title: str
    compute: Callable[[Pair], float]
    best: int
    kind: Literal["share", "length", "volume"]
    meaning: str

    def unit(self, units: str, ndim: int) -> str:
        """Unit of the values, for lengths in `units` and so many axes; empty for shares."""
        if self.kind == "length":
            return units
        if self.kind == "volume":
            return "ml" if (units, ndim) == ("mm", 3) else f"{units}{ndim}"
        return ""

    def badness(self, score: float) -> float:
        """The larger, the worse."""
        return -score if self.best else abs(score)


def _table(*metrics: Metric) -> Mapping[str, Metric]:
    return {metric.name: metric for metric in metrics}


METRICS = _table(
    Metric("dice", "Dice", lambda pair: pair.overlap.dice, 1, "share", "2 TP / (2 TP + FP + FN), of voxels"),
    Metric("f1", "F1", lambda pair: pair.overlap.dice, 1, "share", "of voxels, the same number as Dice"),
    Metric("iou", "IoU", lambda pair: pair.overlap.iou, 1, "share", "TP / (TP + FP + FN), of voxels"),
    Metric("precision", "Precision", lambda pair: pair.overlap.precision, 1, "share", "TP / (TP + FP), of voxels"),
    Metric("recall", "Recall", lambda pair: pair.overlap.recall, 1, "share", "TP / (TP + FN), of voxels"),
    Metric("hd", "HD", lambda p: p.surfaces.hausdorff(), 0, "length", "Hausdorff distance of border voxels"),
    Metric(
        "hd95",
        "HD95",
        lambda p: p.surfaces.hausdorff(95),
        0,
        "length",
        "95th percentile of border voxels' distances, larger of both directions (MONAI)",
    ),
    Metric(
        "hd95_medpy",
        "HD95 (MedPy)",
        lambda p: p.surfaces.hausdorff(95, definition="medpy"),
        0,
        "length",
        "95th percentile of border voxels' distances, both directions together (MedPy)",
    ),
    Metric(
        "hd95_deepmind",
        "HD95 (DeepMind)",
        lambda p: p.surfaces.hausdorff(95, definition="deepmind"),
        0,
        "length",
        "95th percentile of the surface by its area, larger of both directions (surface-distance)",
    ),
    Metric(
        "assd",
        "ASSD",
        lambda p: p.surfaces.average(),
        0,
        "length",
        "mean distance of both masks' border voxels (MONAI)",
    ),
    Metric(
        "assd_deepmind",
        "ASSD (DeepMind)",
        lambda p: p.surfaces.average(definition="deepmind"),
        0,
        "length",
        "mean distance of both surfaces by their area (surface-distance)",
    ),
    Metric(
        "asd_to_reference",
        "ASD to reference",
        lambda p: p.surfaces.average(of="prediction"),
        0,
        "length",
        "mean distance from the prediction's border voxels to the reference's",
    ),
    Metric(
        "asd_to_prediction",
        "ASD to prediction",
        lambda p: p.surfaces.average(of="reference"),
        0,
        "length",
        "mean distance from the reference's border voxels to the prediction's",
    ),
    Metric(
        "surface_dice",
        "Surface Dice",
        lambda p: p.surfaces.dice(p.tolerance),
        1,
        "share",
        "share of both surfaces, by area, within the tolerance (surface-distance)",
    ),
    Metric(
        "surface_dice_voxels",
        "Surface Dice (voxels)",
        lambda p: p.surfaces.dice(p.tolerance, definition="monai"),
        1,
        "share",
        "share of both masks' border voxels within the tolerance (MONAI)",
    ),
    Metric(
        "volume_difference",
        "Volume difference",
        lambda p: p.sizes[0] - p.sizes[1],
        0,
        "volume",
        "prediction - reference",
    ),
    Metric(
        "relative_volume_difference",
        "Relative volume difference",
        lambda p: relative_difference(*p.sizes),
        0,
        "share",
        "(prediction - reference) / reference",
    ),
    Metric("ap50", "AP50", lambda p: p.matches.average_precision, 1, "share", "TP / (TP + FP + FN), of objects"),
    Metric("f1_50", "F1 at 0.5", lambda p: p.matches.f1, 1, "share", "2 TP / (2 TP + FP + FN), of objects"),
    Metric("precision_50", "Precision at 0.5", lambda p: p.matches.precision, 1, "share", "TP / (TP + FP), of objects"),
    Metric("recall_50", "Recall at 0.5", lambda p: p.matches.recall, 1, "share", "TP / (TP + FN), of objects"),
)
DEFAULT = ("dice", "iou", "hd95", "assd", "surface_dice", "volume_difference")
DEFAULT_OBJECTS = ("ap50", "f1_50", "precision_50", "recall_50", "dice", "iou")


def compare(
    prediction: npt.ArrayLike,
    reference: npt.ArrayLike,
    *,
    spacing: Sequence[float],
    metrics: Sequence[str] = DEFAULT,
    both_empty: BothEmpty = "agree",
    **options: Any,
) -> dict[str, float | None]:
    """Measure one structure.

    Parameters
    ----------
    prediction, reference, spacing
        As for `Pair`.
    metrics
        Names in `METRICS`.
    both_empty
        What is said where neither mask has anything: `"agree"` gives the best score (1 for overlaps, 0 for distances and
        differences), `"not applicable"` gives `None`. If one has something, overlaps are 0 and distances infinite.
    **options
        `units`, `tolerance` and `objects`, as for `Pair`.

    Returns
    -------
    dict
        Score by name; infinite and `None` as said, never NaN.

    Raises
    ------
    ValueError
        If shapes or spacing do not fit.
    KeyError
        If there is no such measure.

    Examples
    --------
    >>> compare([[1, 1, 0, 0]], [[0, 1, 1, 0]], spacing=(1, 2), metrics=["dice", "hd"])
    {'dice': 0.5, 'hd': 2.0}
    """
    pair = Pair(prediction, reference, spacing=spacing, **options)
    chosen = [METRICS[name] for name in metrics]
    if not pair.surfaces.prediction.size:
        return scores_of_nothing(metrics, both_empty=both_empty)
    return {metric.name: float(metric.compute(pair)) for metric in chosen}


def scores_of_nothing(metrics: Sequence[str], *, both_empty: BothEmpty = "agree") -> dict[str, float | None]:
    """What `compare` gives where neither mask has anything."""
    return {name: float(METRICS[name].best) if both_empty == "agree" else None for name in metrics}
