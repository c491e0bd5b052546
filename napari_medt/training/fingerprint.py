"""What a data set is like as a whole: all that a plan for training on it is made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from napari_medt.core import BadTrainingData, Cancel, Progress, silent
from napari_medt.training.datasets import DataSet, MaskRule
from napari_medt.training.facts import CaseFacts
from napari_medt.training.modality import Kind, kind_named
from napari_medt.training.survey import look_at_all

LOW, HIGH = 0.5, 99.5  # percentiles of the values inside structures, as nnU-Net takes them


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Values(_Record):
    """Values of one channel inside the structures, every case counting alike, as nnU-Net pools them.

    Attributes
    ----------
    low, median, high
        Percentiles 0.5, 50 and 99.5.
    mean, deviation
        Mean and standard deviation.
    """

    low: float
    median: float
    high: float
    mean: float
    deviation: float


class ClassSize(_Record):
    """How large a class is: cases that show it, its voxels in all of them, and its mean share of the voxels of such a case."""

    name: str
    cases: int
    voxels: int
    share: float


class Fingerprint(_Record):
    """What the cases of the training side are like.

    Attributes
    ----------
    name
        Of the data set's folder.
    kind
        `"ct"`, `"mr"`, `"microscopy"`, `"fundus"`, or empty where that cannot be told.
    dims
        Spatial axes.
    channels
        Their names; of a data set of grey and of colour images `("red", "green", "blue")`.
    classes
        By label value, background included: those the data set names, and all that were found.
    regions, rule
        As in `DataSet`.
    values
        By channel; empty where channels differ or all masks are empty.
    cases
        Shape, geometry and more of each case, without values inside structures.
    """

    name: str
    kind: Kind
    dims: Literal[2, 3]
    channels: tuple[str, ...]
    classes: dict[int, ClassSize]
    regions: dict[str, tuple[int, ...]] = {}
    rule: MaskRule = "classes"
    values: tuple[Values, ...] = ()
    cases: tuple[CaseFacts, ...]

    @property
    def foreground(self) -> float:
        """Median share of voxels that are not background."""
        return float(np.median([fact.foreground / max(1, sum(fact.values.values())) for fact in self.cases]))

    @property
    def value_range(self) -> tuple[float, float]:
        """Lowest and highest value in any image."""
        ranges = [ends for fact in self.cases for ends in fact.ranges]
        return min(low for low, _ in ranges), max(high for _, high in ranges)


def fingerprint(
    dataset: DataSet,
    classes: Mapping[int, str] | Sequence[str] | None = None,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    cancel: Cancel | None = None,
) -> Fingerprint:
    """Look at the cases that may be learnt from and put together what they are like; held-out ones are not looked at.

    Parameters
    ----------
    dataset
        From `find_cases`.
    classes
        Names by label value, or in the order of the values, background first; by default as the data set says. Values that are
        found and not named are called `label 3` and so on.
    cache, workers, progress, cancel
        As for `look_at_all`; the same cache serves `check_data`.

    Raises
    ------
    BadTrainingData
        If no case can be used, or 2D and 3D images are mixed.
    Cancelled
        If the user cancels.
    """
    facts = look_at_all(
        dataset, cases=dataset.for_training, cache=cache, workers=workers, progress=progress, cancel=cancel
    )
    usable = [fact for fact in facts if fact.usable]
    if not usable:
        raise BadTrainingData(
            f"No case of {dataset.folder} can be learnt from", remedy="check the data; it says why for each case"
        )
    dims = {len(fact.shape) for fact in usable}
    if len(dims) > 1:
        raise BadTrainingData("The data set mixes 2D images and scans", remedy="train on each kind apart")
    return Fingerprint(
        name=dataset.folder.name,
        kind=kind_named(dataset.modality) or Counter(fact.kind for fact in usable).most_common(1)[0][0],
        dims=2 if dims == {2} else 3,
        channels=_channels(dataset, usable),
        classes=_classes(dataset, usable, classes),
        regions=dict(dataset.regions),
        rule=dataset.rule,
        values=_values(usable),
        cases=tuple(fact.model_copy(update={"inside": (), "stored": ()}) for fact in usable),
    )


def _channels(dataset: DataSet, usable: Sequence[CaseFacts]) -> tuple[str, ...]:
    counts = {len(fact.channels) for fact in usable}
    if counts == {1, 3}:
        return "red", "green", "blue"
    if len(counts) > 1:
        told = " and ".join(map(str, sorted(counts)))
        raise BadTrainingData(f"The images have {told} channels", remedy="give all the same channels")
    named = dataset.channels
    return named if len(named) == max(counts) else usable[0].channels


def _classes(
    dataset: DataSet, usable: Sequence[CaseFacts], classes: Mapping[int, str] | Sequence[str] | None
) -> dict[int, ClassSize]:
    given = dataset.classes if classes is None else classes
    names = dict(given) if isinstance(given, Mapping) else dict(enumerate(given))
    if dataset.rule != "classes":
        names = {0: names.get(0, "background"), 1: names.get(1, "object")}
    for value in {value for fact in usable for value in fact.values}:
        names.setdefault(value, "background" if value == 0 else f"label {value}")
    found = {}
    for value, name in sorted(names.items()):
        shares = [fact.values[value] / sum(fact.values.values()) for fact in usable if fact.values.get(value)]
        voxels = sum(fact.values.get(value, 0) for fact in usable)
        share = float(np.mean(shares)) if shares else 0.0
        found[value] = ClassSize(name=name, cases=len(shares), voxels=voxels, share=share)
    return found


def _values(usable: Sequence[CaseFacts]) -> tuple[Values, ...]:
    rows = [fact.inside for fact in usable if fact.inside and all(fact.inside)]
    if not rows or len({len(row) for row in rows}) > 1:
        return ()
    found = []
    for pooled in (np.concatenate(channel) for channel in zip(*rows, strict=True)):
        # The values kept of a case are its quantiles at the middles of equal steps: so are those of Hazen.
        low, median, high = (float(value) for value in np.percentile(pooled, (LOW, 50, HIGH), method="hazen"))
        mean, deviation = float(pooled.mean()), float(pooled.std())
        found.append(Values(low=low, median=median, high=high, mean=mean, deviation=deviation))
    return tuple(found)
