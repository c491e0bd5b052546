"""Reading the masks of each case, checking that they lie on one grid, and measuring every structure in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medt._cli.pairing import CasePair
from napari_medt.core import AmbiguousImage, BadImage, Cancel, Cancelled, LabelMap, MedtError, Progress

if TYPE_CHECKING:
    from napari_medt.measure.metrics import BothEmpty, Scores
    from napari_medt.zoo import Model

OBJECTS, EVERYTHING = "objects", "everything"
MANY = 20  # structures of a reference, where the prediction has one: single objects, it seems
MOST_STRUCTURES = 1000  # more labels than anatomy has structures are objects
HIGHEST_LABEL = 2**20


@dataclass(frozen=True)
class Wishes:
    """What is measured, and how; see the options of the command."""

    metrics: tuple[str, ...]
    tolerance: float = 1.0
    both_empty: BothEmpty = "agree"
    names: Mapping[int, str] = field(default_factory=dict)
    objects: bool = False
    binary: bool = False
    resample: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Scores of every case and structure.

    Attributes
    ----------
    cases
        Names in order.
    classes
        Names of the structures, in the order of their labels.
    scores
        By case and class; each case has each class.
    units, ndim
        Of all files alike.
    notes
        Sentences about what was odd.
    """

    cases: tuple[str, ...]
    classes: tuple[str, ...]
    scores: Mapping[tuple[str, str], Scores]
    units: str
    ndim: int
    notes: tuple[str, ...] = ()

    def column(self, of: str, metric: str) -> list[float | None]:
        """Scores of one class, one a case."""
        return [self.scores[case, of][metric] for case in self.cases]


@dataclass(frozen=True)
class _Structure:
    """One structure of one file: its label, its name if the file gives one, and where it lies in which array."""

    value: int
    name: str
    array: np.ndarray[Any, Any] | None = None
    box: tuple[slice, ...] | None = None


@dataclass(frozen=True)
class _Measured:
    scores: Mapping[tuple[int, str], Scores]
    units: str
    ndim: int
    notes: tuple[str, ...]


def score_pairs(
    pairs: Sequence[CasePair],
    wishes: Wishes,
    *,
    model: Model | None = None,
    progress: Progress,
    cancel: Cancel,
) -> tuple[Evaluation | None, list[str]]:
    """Measure all cases.

    Parameters
    ----------
    pairs
        What is compared with what.
    wishes
        What is measured.
    model
        Segments the images that then stand in place of predictions.
    progress, cancel
        Told of, and looked at between, cases.

    Returns
    -------
    Evaluation
        `None` if a case could not be measured, as scores without it would speak of fewer cases than were meant.
    list of str
        One sentence for each such case.
    """
    measured: dict[str, _Measured] = {}
    failures = []
    for number, pair in enumerate(pairs):
        cancel.check()
        progress(number, len(pairs), pair.name)
        try:
            measured[pair.name] = _measure_case(pair, wishes, model, cancel)
        except (Cancelled, AmbiguousImage):
            raise
        except MedtError as error:
            failures.append(f"{pair.name}: {error}")
    progress(len(pairs), len(pairs), "Measured")
    kinds = {(found.units, found.ndim) for found in measured.values()}
    if len(kinds) > 1 and not failures:
        told = " and ".join(sorted(f"{ndim}D in {units}" for units, ndim in kinds))
        failures.append(
            f"The cases are of different kinds, {told}, whose scores have no common mean; compare them apart."
        )
    return (None, failures) if failures else (_together(measured, wishes), [])


def _together(measured: Mapping[str, _Measured], wishes: Wishes) -> Evaluation:
    """Give every case every class, and a label that only some files name the name it has there."""
    from napari_medt.measure import scores_of_nothing

    keys = {key for case in measured.values() for key in case.scores}
    names = {value: {name for label, name in keys if label == value and name} for value, _ in keys}

    def title(value: int, name: str) -> str:
        alone = next(iter(names[value])) if len(names[value]) == 1 else ""
        return wishes.names.get(value, name or alone or f"label {value}")

    classes = tuple(dict.fromkeys(title(*key) for key in sorted(keys)))
    nothing = scores_of_nothing(wishes.metrics, both_empty=wishes.both_empty)
    scores: dict[tuple[str, str], Scores] = {(case, of): nothing for case in measured for of in classes}
    for case, found in measured.items():
        titles = [title(*key) for key in found.scores]
        if len(set(titles)) < len(titles):
            twice = next(of for of in titles if titles.count(of) > 1)
            raise BadImage(f"Two labels of {case} are called {twice}", remedy="name them apart with --names")
        scores |= {(case, of): values for of, values in zip(titles, found.scores.values(), strict=True)}
    any_case = next(iter(measured.values()))
    notes = tuple(f"{case}: {note}" for case, found in measured.items() for note in found.notes)
    return Evaluation(tuple(measured), classes, scores, any_case.units, any_case.ndim, notes)


# -------------------------------------------------------------------------------------------------------------- one case


def _measure_case(pair: CasePair, wishes: Wishes, model: Model | None, cancel: Cancel) -> _Measured:
    from napari_medt.io import read_segmentation

    references = read_segmentation(pair.reference)
    predictions = _predicted(pair, model, cancel) if model else read_segmentation(pair.prediction)
    for mask in (*predictions, *references):
        if mask.fraction:
            raise BadImage("A mask holds probabilities", remedy="write it as labels first")
    grid = references[0]
    notes: list[str] = []
    predictions = tuple(_on_grid(mask, grid, wishes, notes) for mask in predictions)
    references = tuple(_on_grid(mask, grid, wishes, notes) for mask in references)
    if wishes.binary:
        whole = [_anything(masks) for masks in (predictions, references)]
        scores = {(1, EVERYTHING): _compare(whole[0], whole[1], grid, wishes)}
    elif wishes.objects:
        if len(predictions) > 1 or len(references) > 1:
            raise BadImage("Its masks overlap, and objects cannot", remedy="leave out --instances")
        scores = {(1, OBJECTS): _compare(predictions[0].array, references[0].array, grid, wishes)}
    else:
        scores = _measure_structures(predictions, references, grid, wishes, notes)
        if len(scores) > MANY and max(int(mask.array.max(initial=0)) for mask in predictions) == 1:
            how = "--binary compares all that is not 0 as one structure, --instances object by object"
            notes.append(f"The reference seems to number single objects: {how}")
    return _Measured(scores, grid.geometry.units, grid.geometry.ndim, tuple(dict.fromkeys(notes)))


def _predicted(pair: CasePair, model: Model, cancel: Cancel) -> tuple[LabelMap, ...]:
    from napari_medt.engine import predict
    from napari_medt.io import read

    found = predict(model, read(pair.prediction), cancel=cancel)
    return tuple(replace(mask, notes=found.notes) for mask in found.masks())


def _on_grid(mask: LabelMap, grid: LabelMap, wishes: Wishes, notes: list[str]) -> LabelMap:
    """A mask on the grid of the reference, if it is on it, or may be brought there."""
    mine, other = mask.geometry, grid.geometry
    shape = tuple(grid.array.shape)
    if tuple(mask.array.shape) == shape:
        if mine.close_to(other, shape=shape):
            return mask
        for one, two in ((mine, other), (other, mine)):
            if one.frame == "image" and (one.units == "px" or two.frame == "patient"):
                notes.append("One file does not say where it lies and is taken to lie where the other does")
                return mask
    physical = "px" not in (mine.units, other.units)
    if wishes.resample and physical:
        from napari_medt.io import resample

        notes.append("The prediction was brought onto the grid of the reference, by the nearest label")
        return resample(mask, other, shape)
    sizes = [
        f"{' x '.join(map(str, each.array.shape))} at {' x '.join(f'{step:.4g}' for step in each.geometry.spacing)} "
        f"{each.geometry.units}"
        for each in (mask, grid)
    ]
    how = f"{sizes[0]}, not {sizes[1]}" if sizes[0] != sizes[1] else f"{sizes[0]} as it is, but elsewhere"
    raise BadImage(
        f"The prediction does not lie on the grid of the reference: {how}",
        remedy="give --resample to bring it there, or predict on the same image"
        if physical
        else "predict on the same image",
    )


# ------------------------------------------------------------------------------------------------------------ structures


def _measure_structures(
    predictions: Sequence[LabelMap],
    references: Sequence[LabelMap],
    grid: LabelMap,
    wishes: Wishes,
    notes: list[str],
) -> dict[tuple[int, str], Scores]:
    found, true = (_structures(masks, notes) for masks in (predictions, references))
    named = not wishes.names and all(each.name for each in (*found, *true))
    # Files that have no name in common mean something else by them.
    by_name = named and any(_key(one, by_name=True) == _key(two, by_name=True) for one in found for two in true)
    sides = []
    for structures in (found, true):
        keyed = {_key(each, by_name=by_name): each for each in structures}
        if len(keyed) < len(structures):
            raise BadImage("Two overlapping structures have the same label", remedy="give each its own name")
        sides.append(keyed)
    scores = {}
    for key in dict.fromkeys((*sides[1], *sides[0])):
        one, two = sides[0].get(key), sides[1].get(key)
        known = [each for each in (two, one) if each is not None]
        if by_name and len({each.value for each in known}) > 1:
            values = " in the reference and ".join(str(each.value) for each in known)
            notes.append(f"{known[0].name} has the label {values} in the prediction")
        name = next((each.name for each in known if each.name), "")
        scores[known[0].value, name] = _compare(*_cut(one, two), grid, wishes)
    return scores


def _anything(masks: Sequence[LabelMap]) -> np.ndarray[Any, Any]:
    whole: np.ndarray[Any, Any] = np.logical_or.reduce([np.asarray(mask.array) != 0 for mask in masks])
    return whole


def _key(structure: _Structure, *, by_name: bool) -> int | str:
    return structure.name.strip().casefold() if by_name else structure.value


def _structures(masks: Sequence[LabelMap], notes: list[str]) -> list[_Structure]:
    """What is in a file, and what it names without having it."""
    from scipy.ndimage import find_objects

    found = []
    for mask in masks:
        array = np.asarray(mask.array)
        labels = array.astype(np.uint8) if array.dtype == bool else array
        # The list of places is as long as the largest label.
        boxes = find_objects(labels) if labels.max(initial=0) < HIGHEST_LABEL else None
        places = {value: box for value, box in enumerate(boxes or (), start=1) if box is not None}
        if boxes is None or len(places) > MOST_STRUCTURES:
            raise BadImage("There are too many labels for structures", remedy="give --instances if each is one object")
        names = {value: name for value, name in mask.names.items() if value != 0}
        if set(places) == {255} and not names:
            notes.append("255 is the only label of a file and taken for 1")
            found.append(_Structure(1, "", (array == 255).view(np.uint8), places[255]))
            continue
        found += [
            _Structure(value, names.get(value, ""), array, places.get(value)) for value in sorted({*places, *names})
        ]
    return found


def _cut(one: _Structure | None, two: _Structure | None) -> tuple[Any, Any]:
    """The two masks in the smallest box that holds both."""
    boxes = [each.box for each in (one, two) if each is not None and each.box is not None]
    array = next(each.array for each in (two, one) if each is not None and each.array is not None)
    box = tuple(slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*boxes, strict=True))
    box = box or (slice(0, 0),) * array.ndim
    empty = np.zeros(array[box].shape, bool)
    first, second = (
        each.array[box] == each.value if each is not None and each.array is not None else empty for each in (one, two)
    )
    return first, second


def _compare(prediction: Any, reference: Any, grid: LabelMap, wishes: Wishes) -> Scores:
    from napari_medt.measure import compare

    return compare(
        prediction,
        reference,
        spacing=grid.geometry.spacing,
        units=grid.geometry.units,
        metrics=wishes.metrics,
        tolerance=wishes.tolerance,
        both_empty=wishes.both_empty,
        objects=wishes.objects,
    )
