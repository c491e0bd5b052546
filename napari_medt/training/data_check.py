"""Is a data set fit to be learnt from: what is wrong with it is said before the training, one sentence a problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from napari_medt.core import Cancel, Progress, silent
from napari_medt.training.datasets import Case, DataSet
from napari_medt.training.facts import DISTINCT, CaseFacts
from napari_medt.training.problems import Problem, describe
from napari_medt.training.survey import look_at_all

__all__ = ["Problem", "check_data", "describe", "judge"]

FEW_CLASSES = 3  # up to this number of labels, masks with some of them each are nothing odd
FEW = 32  # different values at most in an image that looks like a mask
OUTLIER = 2.5  # times finer or coarser than the median a spacing is told
TOLERANCE_MM = 0.1
_OBJECTS = "give --masks objects"
_SIDES = ("train", "validation", "test")
Looked = Sequence[tuple[Case, CaseFacts]]


def check_data(
    dataset: DataSet,
    classes: Mapping[int, str] | Sequence[str] | None = None,
    *,
    tolerance_mm: float = TOLERANCE_MM,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    cancel: Cancel | None = None,
) -> list[Problem]:
    """Look at every case and say what is wrong.

    Parameters
    ----------
    dataset
        From `find_cases`.
    classes
        Names by label value, or in the order of the values, background first; by default as the data set says. Without either,
        every label value is a class, and those that look like slips or numbered objects are told.
    tolerance_mm
        How far a mask may lie from its image.
    cache, workers, progress, cancel
        As for `look_at_all`; `fingerprint` can use the same cache.

    Returns
    -------
    list of Problem
        Errors first; empty if all is well.

    Raises
    ------
    Cancelled
        If the user cancels.
    """
    facts = look_at_all(dataset, cache=cache, workers=workers, progress=progress, cancel=cancel)
    return judge(dataset, facts, classes, tolerance_mm=tolerance_mm)


def judge(
    dataset: DataSet,
    facts: Sequence[CaseFacts],
    classes: Mapping[int, str] | Sequence[str] | None = None,
    *,
    tolerance_mm: float = TOLERANCE_MM,
) -> list[Problem]:
    """As `check_data`, from what was found about each case, in the order of `dataset.cases`."""
    names = _names(dataset, classes)
    looked = list(zip(dataset.cases, facts, strict=True))
    found = [*dataset.problems]
    for case, fact in looked:
        found += _about_one(case, fact, tolerance_mm)
    usable = [(case, fact) for case, fact in looked if fact.usable]
    if dataset.rule == "classes":
        found += _label_values(usable, names)
    found += [*_swapped(looked), *_classes_absent(usable, names), *_different(usable), *_spacings(usable)]
    found += [*_twice(looked), *_sides(dataset)]
    return sorted(found, key=lambda problem: problem.severity != "error")


def _names(dataset: DataSet, classes: Mapping[int, str] | Sequence[str] | None) -> Mapping[int, str]:
    if classes is None:
        classes = {0: "background", 1: "object"} if dataset.rule != "classes" else dataset.classes
    return classes if isinstance(classes, Mapping) else dict(enumerate(classes))


# ------------------------------------------------------------------------------------------------------------ one case


def _about_one(case: Case, fact: CaseFacts, tolerance_mm: float) -> Iterator[Problem]:
    if fact.image_trouble is not None:
        yield Problem("error", "unreadable", fact.image_trouble.what, fact.image_trouble.remedy, case.name)
        return
    yield from _values_of_image(case, fact)
    if len(fact.mask_shape) and fact.mask_shape != fact.shape:
        what = f"The image has {_by(fact.shape)} voxels, but its mask has {_by(fact.mask_shape)}"
        if fact.usable and fact.covers:
            remedy = "know that it is put on the image's grid, by the nearest label"
            yield Problem("warning", "shape", what, remedy, case.name)
        else:
            yield Problem("error", "shape", what, "give the mask that was drawn on this image", case.name)
            return
    elif fact.mask_trouble is not None:
        yield Problem("error", "unreadable mask", fact.mask_trouble.what, fact.mask_trouble.remedy, case.name)
        return
    if fact.apart_mm is not None and fact.apart_mm > tolerance_mm:
        what = f"The mask lies up to {fact.apart_mm:.3g} mm beside its image"
        remedy = "copy the image's header to the mask if it was drawn on this image, else give the right mask"
        yield Problem("error", "geometry", what, remedy, case.name)
    elif fact.mask_is_image and fact.foreground:
        yield Problem("error", "same", "Image and mask are the same", "give the mask of this image", case.name)
    elif not fact.foreground:
        remedy = "check that there is nothing of it in the image"
        yield Problem("warning", "empty", "The mask is empty", remedy, case.name)


def _values_of_image(case: Case, fact: CaseFacts) -> Iterator[Problem]:
    flat = [name for name, (low, high) in zip(fact.channels, fact.ranges, strict=True) if not high > low]
    if len(flat) == len(fact.channels):
        what = (
            f"All voxels of the image have the value {fact.ranges[0][0]:g}" if len(flat) == 1 else "The image is flat"
        )
        yield Problem("error", "constant", what, "take it out", case.name)
    elif flat:
        what = f"All voxels of the channel {flat[0]} have the same value"
        yield Problem("warning", "constant channel", what, "check how the image was made", case.name)
    if fact.finite < 1:
        what = f"{max(0.1, 100 * (1 - fact.finite)):.1f} % of the image's values are not numbers (NaN or infinity)"
        remedy = "know that they are taken for background"
        yield Problem("warning", "not a number", what, remedy, case.name)


# ----------------------------------------------------------------------------------------------------------- all cases


def _label_values(usable: Looked, names: Mapping[int, str]) -> Iterator[Problem]:
    """Labels without a class: black and white masks, masks that number objects, and others."""
    found = [(case, [value for value in fact.stored if value]) for case, fact in usable]
    if not names:
        yield from _unnamed(found)
    outside = {case.name: [value for value in stored if names and value not in names] for case, stored in found}
    objects = any(outside[case.name] and len(stored) > max(2 * len(names), 8) for case, stored in found)
    for case, stored in found:
        if stored == [255] and (outside[case.name] or not names):
            what = "The mask is black and white, 0 and 255, instead of numbering classes from 0"
            remedy = _OBJECTS + ", by which anything but 0 counts"
            yield Problem("error", "black and white", what, remedy, case.name)
        elif (odd := outside[case.name]) and not objects:
            what = f"The mask holds the label{_s(odd)} {_listed(odd)}, of which there is no class"
            yield Problem("error", "label values", what, "correct the mask, or name the class", case.name)
        elif odd:
            number = f"{len(stored)}" if len(stored) < DISTINCT else f"more than {DISTINCT}"
            what = f"The mask holds {number} label{_s(stored)} up to {stored[-1]}, but there are {len(names)} classes"
            remedy = _OBJECTS + " if it numbers single objects"
            if stored[-1] == 255:
                remedy = "give --masks white if it is black and white with soft edges"
            yield Problem("error", "label values", what, remedy, case.name)


def _unnamed(found: Sequence[tuple[Case, list[int]]]) -> Iterator[Problem]:
    """Labels that nobody named: masks that seem to number objects, and labels of a single mask."""
    numbered = [len(stored) for _, stored in found if stored == list(range(1, len(stored) + 1))]
    if len(numbered) == len(found) and len(set(numbered)) > 2 and max(numbered) > FEW_CLASSES:
        what = f"Masks hold labels from 1 to {min(numbered)} up to 1 to {max(numbered)}, each of which is taken for a class"
        yield Problem("warning", "objects", what, _OBJECTS + " if they number single objects, else name the classes")
        return
    cases = Counter(value for _, stored in found for value in stored)
    for case, stored in found:
        alone = [value for value in stored if cases[value] == 1 and value != 255]
        if alone and len(found) > 2:
            what = f"No other mask holds the label{_s(alone)} {_listed(alone)}, each of which is taken for a class"
            yield Problem("warning", "rare label", what, "correct the mask if that is a slip", case.name)


def _swapped(looked: Looked) -> Iterator[Problem]:
    """Images with as few values as masks have, beside masks that are none or have many."""
    suspects = [case for case, fact in looked if _looks_swapped(fact)]
    for case in suspects:
        what = "Image and mask seem to be swapped: the image has few values, as a mask has, and the mask many"
        yield Problem("error", "swapped", what, "swap the two files, or the two folders", case.name)


def _looks_swapped(fact: CaseFacts) -> bool:
    if fact.image_trouble is not None or not 1 < fact.distinct <= FEW:
        return False
    return fact.mask_is_picture or len(fact.stored) > max(FEW, 4 * fact.distinct)


def _classes_absent(usable: Looked, names: Mapping[int, str]) -> Iterator[Problem]:
    if not usable:
        return
    if not any(fact.foreground for _, fact in usable):
        yield Problem("error", "all empty", "All masks are empty", "draw masks first")
        return
    if not any(fact.values.get(0) for _, fact in usable):
        remedy = "check what the masks mean by 0, which is the background"
        yield Problem("warning", "no background", "No mask leaves any background", remedy)
    for value, name in names.items():
        if not value:
            continue
        there = [case.split for case, fact in usable if fact.values.get(value)]
        if not any(split in ("train", "") for split in there):
            where = "in any mask" if not there else "in a mask that is learnt from"
            what = f"The class {name} (label {value}) is not {where}"
            yield Problem("error", "class absent", what, "add cases that show it, or take the class out")
        elif any(case.split == "validation" for case, _ in usable) and "validation" not in there:
            what = f"The class {name} (label {value}) is in no mask of the validation part"
            yield Problem("warning", "class not validated", what, "choose another split")


def _different(usable: Looked) -> Iterator[Problem]:
    """Cases with other axes, channels or kinds than most."""
    axes = Counter(len(fact.shape) for _, fact in usable)
    counts = Counter(len(fact.channels) for _, fact in usable)
    kinds = Counter(fact.kind for _, fact in usable if fact.kind)
    pictures = set(counts) == {1, 3}
    if pictures:
        what = f"{counts[1]} images are grey and {counts[3]} have three channels"
        yield Problem("warning", "grey and colour", what, "know that grey images are learnt as colour ones")
    for case, fact in usable:
        if len(fact.shape) != (most := axes.most_common(1)[0][0]):
            what = f"The image has {len(fact.shape)} axes, but most have {most}"
            yield Problem("error", "axes", what, "train on 2D images and on scans apart", case.name)
        if not pictures and len(fact.channels) != (most := counts.most_common(1)[0][0]):
            what = f"The image has {len(fact.channels)} channel{_s(fact.channels)}, but most have {most}"
            yield Problem("error", "channels", what, "give all the same channels", case.name)
        if fact.kind and fact.kind != (usual := kinds.most_common(1)[0][0]):
            what = f"The image looks like {fact.kind.upper()}, but most look like {usual.upper()}"
            yield Problem("warning", "kind", what, "check that it belongs to this data set", case.name)


def _spacings(usable: Looked) -> Iterator[Problem]:
    units = Counter("px" if fact.units == "px" else "mm" for _, fact in usable)
    if len(units) == 2:
        without = [case.name for case, fact in usable if fact.units == "px"]
        what = f"{len(without)} of {len(usable)} images do not say how far apart their samples are ({_listed(without)})"
        yield Problem("warning", "no spacing", what, "give all the same kind of file")
    measured = [(case, fact, spacing_mm(fact)) for case, fact in usable if fact.units != "px"]
    for dims in (2, 3):
        alike = [row for row in measured if len(row[2]) == dims]
        if len(alike) < 3:
            continue
        median = np.median([spacing for *_, spacing in alike], axis=0)
        for case, _, spacing in alike:
            ratio = np.asarray(spacing) / median
            if max(ratio.max(), 1 / ratio.min()) > OUTLIER:
                what = f"Its samples are {_by(spacing)} mm apart, but usually {_by(median)} mm"
                yield Problem("warning", "spacing", what, "check that it belongs to this data set", case.name)


def spacing_mm(fact: CaseFacts) -> tuple[float, ...]:
    """Spacing in mm along the world's axes `([z,] y, x)`."""
    geometry = fact.geometry
    scale = 1e-3 if fact.units == "um" else 1.0
    return tuple(geometry.spacing[axis] * scale for axis in geometry.axes_towards().order)


def _twice(looked: Looked) -> Iterator[Problem]:
    """The same image more than once."""
    first: dict[str, Case] = {}
    for case, fact in looked:
        if not fact.digest:
            continue
        other = first.setdefault(fact.digest, case)
        if other is case:
            continue
        if case.split and other.split and other.split != case.split:
            what = (
                f"It is the same image as {other.name}, but the one is in {case.split} and the other in {other.split}"
            )
            yield Problem("error", "leak", what, "take one of them out", case.name)
        else:
            what = f"It is the same image as {other.name}"
            yield Problem("warning", "twice", what, "take one of them out", case.name)


def _sides(dataset: DataSet) -> Iterator[Problem]:
    patients: dict[str, set[str]] = {}
    for case in dataset.cases:
        if case.patient and case.split:
            patients.setdefault(case.patient, set()).add(case.split)
    for patient, sides in patients.items():
        if len(sides) > 1:
            told = " and ".join(side for side in _SIDES if side in sides)
            what = f"Images of the patient or field of view {patient} are in {told}"
            yield Problem("error", "patient in two splits", what, "make the split anew, by patient")
    if len(dataset.cases) == 1:
        what = "There is a single case, so nothing tells how well the model does on others"
        yield Problem("warning", "single case", what, "add cases if you can")
    elif not dataset.for_training:
        yield Problem("error", "no training part", "No case is left to learn from", "mark cases as train")
    elif not dataset.on("validation"):
        what = "No case is marked for validation, so nothing tells when to stop"
        yield Problem("warning", "no validation part", what, "make a split")


def _by(sizes: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)


def _listed(values: Sequence[object], most: int = 6) -> str:
    return ", ".join(map(str, values[:most])) + (" ..." if len(values) > most else "")


def _s(values: Sequence[object]) -> str:
    return "" if len(values) == 1 else "s"
