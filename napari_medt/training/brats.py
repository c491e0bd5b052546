"""Brain tumours as the BRATS challenges and the Medical Segmentation Decathlon give them: labels, and folders.

The three structures that are learnt lie in one another: the whole tumour, its core, and what of that takes up contrast. Masks
hold them as labels of their parts, and which label means which part has changed from release to release:

========== ========================= ====== =========
scheme     necrotic or not enhancing oedema enhancing
========== ========================= ====== =========
msd        2                         1      3
brats2018  1                         2      4
brats2023  1                         2      3
========== ========================= ====== =========

`msd` is Task01 of the Decathlon, as its `dataset.json` says. `brats2018` holds for the challenges up to 2021
(https://www.med.upenn.edu/sbia/brats2018/tasks.html: "1 for NCR & NET, 2 for ED, 4 for ET"), `brats2023` from 2023 on
(https://github.com/Project-MONAI/MONAI/pull/8779). A well-known tutorial takes the Decathlon's label 2 for the enhancing
tumour (https://github.com/Project-MONAI/tutorials/issues/1355), so that what it calls that is the rest of the core.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadTrainingData
from napari_medt.engine.channels import sequence_of
from napari_medt.io.names import without_ending
from napari_medt.training.datasets import Case, DataSet
from napari_medt.training.problems import Problem

SchemeName = Literal["msd", "brats2018", "brats2023"]
REGIONS = ("whole tumour", "tumour core", "enhancing tumour")
CLEARLY = 2  # times as many faces towards healthy tissue tell oedema from core
Counts = npt.NDArray[np.int_]


@dataclass(frozen=True)
class Scheme:
    """The label of each part of a tumour."""

    core: int
    oedema: int
    enhancing: int

    @property
    def values(self) -> dict[str, tuple[int, ...]]:
        """Which labels make up each of `REGIONS`."""
        inside = (self.core, self.enhancing)
        return dict(zip(REGIONS, ((self.oedema, *inside), inside, (self.enhancing,)), strict=True))


SCHEMES: Mapping[SchemeName, Scheme] = {
    "msd": Scheme(core=2, oedema=1, enhancing=3),
    "brats2018": Scheme(core=1, oedema=2, enhancing=4),
    "brats2023": Scheme(core=1, oedema=2, enhancing=3),
}


def check_names(name: SchemeName, classes: Mapping[int, str]) -> None:
    """Compare a scheme with what a data set calls its labels.

    Raises
    ------
    BadTrainingData
        If it calls another label oedema or enhancing.
    """
    told = {part: value for value, text in classes.items() if (part := _part(text))}
    if any(getattr(SCHEMES[name], part) != value for part, value in told.items()):
        fits = [one for one, scheme in SCHEMES.items() if all(getattr(scheme, p) == v for p, v in told.items())]
        said = ", ".join(f"{value} {classes[value]}" for value in sorted(told.values()))
        _refuse(name, f"the data set calls its labels {said}", fits)


def _part(text: str) -> str:
    plain = text.casefold()
    if "edema" in plain:  # in oedema too
        return "oedema"
    return "enhancing" if "enhancing" in plain and not re.search(r"\bnon|\bnot\b", plain) else ""


def check_values(name: SchemeName, mask: npt.NDArray[Any], case: str) -> None:
    """Compare a scheme with the values in one mask.

    Raises
    ------
    BadTrainingData
        If there is one that the scheme does not have.
    """
    known, found = set(SCHEMES[name].values[REGIONS[0]]), {int(value) for value in np.unique(mask)} - {0}
    if unknown := found - known:
        fits = [one for one, scheme in SCHEMES.items() if found <= set(scheme.values[REGIONS[0]])]
        if {"msd", "brats2023"} <= set(fits):
            faces = outer_faces(mask)
            fits = ["msd" if faces[1] > faces[2] else "brats2023"]
        _refuse(name, f"the mask of {case} holds the label {min(unknown)}, which it does not have", fits)


def outer_faces(mask: npt.NDArray[Any]) -> Counts:
    """How many faces of voxels of each of the labels 0, 1 and 2 lie against background; that of 0 is 0."""
    counts = np.zeros(3, int)
    for axis in range(mask.ndim):
        before, after = (
            np.take(mask, range(*ends), axis) for ends in ((0, mask.shape[axis] - 1), (1, mask.shape[axis]))
        )
        for one, other in ((before, after), (after, before)):
            counts[1:] += [np.count_nonzero((one == value) & (other == 0)) for value in (1, 2)]
    return counts


def check_places(name: SchemeName, faces: Counts) -> None:
    """Compare a scheme with where the labels 1 and 2 lie: oedema is around the core, so most of it is against healthy tissue.

    Parameters
    ----------
    name
        Of the scheme.
    faces
        From `outer_faces`, summed over cases, since single tumours may be otherwise.

    Raises
    ------
    BadTrainingData
        If the core would clearly lie around the oedema.
    """
    scheme = SCHEMES[name]
    if faces[scheme.core] > CLEARLY * faces[scheme.oedema]:
        fits = ["brats2023" if name == "msd" else "msd"]  # the label 4 of "brats2018" is told by the values
        _refuse(
            name, f"the label {scheme.core} lies around the label {scheme.oedema}, as oedema lies around a core", fits
        )


def _refuse(name: SchemeName, why: str, fits: Iterable[str]) -> NoReturn:
    likely = " or ".join(f'"{one}"' for one in fits)
    raise BadTrainingData(
        f'The labels are not of the scheme "{name}": {why}',
        remedy=(f"they are likely of {likely}, so set scheme to that" if likely else "leave scheme out")
        + ", or say under values which labels make up each structure",
    )


# ------------------------------------------------------------------------------------------------------------- folders

_MASK = "**/*seg.nii*"
_ORDER = ("flair", "t1", "t1c", "t2")  # as in the Decathlon's files


def has_patients(folder: Path) -> bool:
    """Whether there is the mask of a patient with an image of each sequence beside it."""
    return any(len(_sequences(mask)) == len(_ORDER) for mask in _seen(folder, _MASK))


def from_patients(folder: Path) -> DataSet:
    """A folder for each patient, with a file for each MR sequence and one for the mask, as the challenges give them.

    Raises
    ------
    BadTrainingData
        If there is none.
    """
    cases, problems = [], []
    for mask in _seen(folder, _MASK):
        name, files = _start(mask).rstrip("_-. ") or mask.parent.name, _sequences(mask)
        missing = [one for one in _ORDER if one not in files]
        if missing:
            what = f"There is no image of the sequence {', '.join(missing)} beside {mask.name}"
            problems.append(Problem("error", "no image", what, "add the file, or take the case out", name))
            continue
        visits = re.fullmatch(r"(BraTS-\w+-\d+)-\d+", name)  # of one patient, since 2023
        images = tuple(files[one] for one in _ORDER)
        cases.append(Case(name, images, mask, patient=visits[1] if visits else ""))
    if not cases:
        raise BadTrainingData(
            f"No folder in {folder} holds a mask and the four sequences of a patient",
            remedy="give the folder of the data set",
        )
    return DataSet(
        folder, "brats", tuple(cases), channels=("FLAIR", "T1", "T1c", "T2"), modality="MRI", problems=tuple(problems)
    )


def _seen(folder: Path, pattern: str) -> list[Path]:
    """Files in the order of their names, without hidden ones."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def _sequences(mask: Path) -> dict[str, Path]:
    """Files beside a mask that begin as it does, by the sequence that the last word of their name tells."""
    start = _start(mask)
    beside = (path for path in _seen(mask.parent, "*.nii*") if path != mask and path.name.startswith(start))
    return {sequence_of(re.split(r"[_-]", without_ending(path.name))[-1]): path for path in beside}


def _start(mask: Path) -> str:
    """What a patient's files begin with who shares the folder with others; nothing for one who has it alone."""
    return without_ending(mask.name).removesuffix("seg") if len(_seen(mask.parent, "*seg.nii*")) > 1 else ""
