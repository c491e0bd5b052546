"""Which cases are learnt from, which choose the best state, and which are held out: drawn by patient, kept in a CSV file."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_medt.core import BadTrainingData
from napari_medt.training.case_table import annotated, read_table, write_table
from napari_medt.training.datasets import Case, DataSet, Side

FRACTIONS = (0.8, 0.2, 0.0)
SHARES = (0.7, 0.1, 0.2)  # of the cases, to learn from, to choose the best state by, and held out for the score


def make_split(
    dataset: DataSet,
    seed: int = 0,
    fractions: tuple[float, float, float] = FRACTIONS,
    *,
    keep: Sequence[Side] = ("test",),
) -> DataSet:
    """Draw the sides of the split.

    Patients, or fields of view, are never divided, and every group of images gives each side its share as nearly as its
    patients allow. The same cases, seed and fractions give the same split, in whatever order the cases are listed.

    Parameters
    ----------
    dataset
        What it says of sides is forgotten, but for those in `keep`.
    seed
        Of the shuffle.
    fractions
        Shares of training, validation and test, of the cases that are drawn; they sum to 1.
    keep
        Sides whose cases stay there.

    Raises
    ------
    BadTrainingData
        If the fractions are none, or there are too few patients for the sides wanted.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or not fractions[0]:
        raise BadTrainingData(
            f"A split cannot have the shares {fractions}",
            remedy="give three shares that sum to 1, of which the first is not 0",
        )
    kept = {case.unit: case.split for case in dataset.cases if case.split in keep}
    drawn = [case for case in dataset.cases if case.unit not in kept]
    units: dict[str, list[Case]] = {}
    for case in sorted(drawn, key=lambda case: case.name):
        units.setdefault(case.unit, []).append(case)
    wanted: list[tuple[Side, float]] = [("validation", fractions[1]), ("test", fractions[2])]
    needed = 1 + sum(share > 0 for _, share in wanted)
    if len(units) < needed:
        told = "a single patient or field of view" if len(units) == 1 else f"{len(units)} patients or fields of view"
        raise BadTrainingData(
            f"The cases are of {told}, too few for {needed} parts",
            remedy="add cases of others, or name the side of each in the column split of a table",
        )
    sides = kept | _drawn(units, seed, wanted)
    cases = tuple(replace(case, split=sides.get(case.unit, "train")) for case in dataset.cases)
    return replace(dataset, cases=cases)


def complete_split(dataset: DataSet, seed: int, digests: Mapping[str, str] | None = None) -> DataSet:
    """Draw sides by `SHARES` where the data do not name one for every case; held-out cases they name stay the only ones.

    Cases whose images have the same digest, by the names of the cases, are taken for one patient and stay on one side.
    """
    if all(case.split for case in dataset.cases):
        return dataset
    learn, choose, held_out = SHARES
    if any(case.split == "test" for case in dataset.cases):
        learn, choose, held_out = learn / (learn + choose), choose / (learn + choose), 0.0
    return make_split(_twins_together(dataset, digests or {}), seed, (learn, choose, held_out))


def _twins_together(dataset: DataSet, digests: Mapping[str, str]) -> DataSet:
    """Give patients who share an image the name of the first of them."""
    first: dict[str, str] = {}
    same: dict[str, str] = {}  # unit to an earlier one

    def earliest(unit: str) -> str:
        while unit in same:
            unit = same[unit]
        return unit

    for case in dataset.cases:
        if digest := digests.get(case.name):
            one, other = earliest(first.setdefault(digest, case.unit)), earliest(case.unit)
            if one != other:
                same[other] = one
    names = {case.unit: case.patient or case.name for case in dataset.cases}
    shared = {earliest(unit) for unit in same}
    cases = [(case, earliest(case.unit)) for case in dataset.cases]
    return replace(
        dataset, cases=tuple(replace(case, patient=names[unit]) if unit in shared else case for case, unit in cases)
    )


def _drawn(units: dict[str, list[Case]], seed: int, wanted: Sequence[tuple[Side, float]]) -> dict[str, Side]:
    """Sides other than training by unit; what one group cannot give exactly, the next makes up for."""
    groups: dict[str, list[str]] = {}
    for unit, cases in units.items():
        groups.setdefault(_group(cases), []).append(unit)
    sides: dict[str, Side] = {}
    owed = {side: 0.0 for side, _ in wanted}
    for group in sorted(groups):
        members = sorted(groups[group])
        number = sum(len(units[unit]) for unit in members)
        rng = np.random.default_rng([seed, zlib.crc32(group.encode())])
        left = [members[index] for index in rng.permutation(len(members))]
        for side, share in wanted:
            owed[side] += share * number
            for unit in list(left):
                size = len(units[unit])
                if size <= (2 * owed[side] if len(left) > 1 else owed[side] + 1e-9):
                    owed[side] -= size
                    sides[unit] = side
                    left.remove(unit)
    whole: dict[str, Side] = {unit: sides.get(unit, "train") for unit in units}
    # Where patients are too large for their share, the smallest that can be spared.
    for side, share in [("train", 1.0), *wanted]:
        if share and side not in whole.values():
            count = Counter(whole.values())
            spare = [unit for unit in units if count[whole[unit]] > 1]
            whole[min(spare, key=lambda unit: (whole[unit] != "train", len(units[unit]), unit))] = side
    return whole


def _group(cases: Sequence[Case]) -> str:
    """The group that most images of a patient are of."""
    names = sorted(case.group for case in cases)
    return max(names, key=names.count)


def hold_out(dataset: DataSet, sides: Sequence[Side] = ("validation", "test")) -> DataSet:
    """Make the cases of some sides the test side and all others training, for data that come with a part held out."""
    cases = [replace(case, split="test" if case.split in sides else "train") for case in dataset.cases]
    return replace(dataset, cases=tuple(cases))


def write_split(dataset: DataSet, path: Path) -> Path:
    """Write the split as CSV with the columns file, group, field and split.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    return write_table(path, dataset.cases)


def apply_split(dataset: DataSet, path: Path) -> DataSet:
    """The data set with the split, groups and patients of a CSV file, as `write_split` makes it.

    What does not fit between the two is added to the problems of the data set. Cases that do not stand in the file are left out.

    Raises
    ------
    BadTrainingData
        If the file cannot be read, does not say which case is on which side, or has a patient on two sides.
    """
    table = read_table(path)
    if table is None or "split" not in table.columns:
        raise BadTrainingData(
            f"{path.name} is no split: it needs the columns file and split", remedy="make it with write_split"
        )
    cases, problems = annotated(dataset.cases, table)
    absent = {problem.case for problem in problems if problem.kind == "no row"}
    unclear = {problem.case for problem in problems if problem.kind == "side"}
    cases = tuple(case for case in cases if case.name not in absent)
    sides: dict[str, str] = {}
    for case in cases:
        if not case.split and case.name not in unclear:
            raise BadTrainingData(
                f"{path.name} does not say on which side {case.name} is",
                remedy="write train, validation or test, or remove its row to leave it out",
            )
        if sides.setdefault(case.unit, case.split) != case.split:
            raise BadTrainingData(
                f"In {path.name}, images of the {case.unit} are in two splits", remedy="make the split anew, by patient"
            )
    return replace(dataset, cases=cases, problems=(*dataset.problems, *problems))
