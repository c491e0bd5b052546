"""Data sets: which images belong to which masks, however they lie on disk, and how one case is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadTrainingData, Volume
from napari_medt.io import join_channels, read, read_segmentation
from napari_medt.training.problems import Problem

Side = Literal["train", "validation", "test", ""]
Layout = Literal["auto", "folders", "original", "decathlon", "nnunet", "brats", "cases"]
MaskRule = Literal["classes", "objects", "white"]
WHITE = 127  # of 255, above which a pixel of a black and white mask is the object


@dataclass(frozen=True)
class Case:
    """One image with its mask.

    Attributes
    ----------
    name
        Only once in its data set.
    images
        One file, or one for each channel; a folder for DICOM and OME-Zarr.
    labels
        File of the mask.
    group
        Kind of image, by which splits are balanced; may be empty.
    patient
        What must not be on two sides of a split: a patient, or a field of view; empty where each case is its own.
    split
        `"train"`, `"validation"`, `"test"`, or empty where nobody has said it yet.
    choose
        What `read` is told about the image.
    """

    name: str
    images: tuple[Path, ...]
    labels: Path
    group: str = ""
    patient: str = ""
    split: Side = ""
    choose: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """What is kept on one side of a split: the patient, or the case itself."""
        return f"patient {self.patient}" if self.patient else f"case {self.name}"


@dataclass(frozen=True)
class DataSet:
    """Cases that are learnt from together.

    Attributes
    ----------
    folder
        Where it lies.
    layout
        As which it was understood.
    cases
        In the order of their names.
    classes
        Names by label value, background included, as far as the data set says them.
    regions
        Label values by name, where the data set wants overlapping regions learnt that several labels make up together.
    channels
        Names, as far as the data set says them.
    modality
        In the words of the data set, `"CT"`, `"MRI"` ...; may be empty.
    rule
        What the numbers of the masks are. `"classes"`: label values. `"objects"`: anything but 0 is the one class, as in masks
        that number single objects or hold 0 and 255. `"white"`: what is brighter than half is.
    ignored
        Number of files that were passed over: hidden ones, those of the system, and those of no known format.
    problems
        What was wrong with the listing: images without masks, masks without images.
    """

    folder: Path
    layout: Layout
    cases: tuple[Case, ...]
    classes: Mapping[int, str] = field(default_factory=dict)
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    modality: str = ""
    rule: MaskRule = "classes"
    ignored: int = 0
    problems: tuple[Problem, ...] = ()

    @property
    def for_training(self) -> tuple[Case, ...]:
        """The cases that may be learnt from: those of the training side, or all that are not held out."""
        return tuple(case for case in self.cases if case.split in ("train", ""))

    def on(self, side: Side) -> tuple[Case, ...]:
        """The cases of one side of the split."""
        return tuple(case for case in self.cases if case.split == side)


def find_cases(
    folder: Path,
    layout: Layout = "auto",
    *,
    images: str | Path | None = None,
    labels: str | Path | None = None,
    rule: MaskRule | None = None,
) -> DataSet:
    """List the cases of a data set; no image is read.

    A CSV file in the folder (`index.csv`, or the only one) with a column `file` or `case` says of each case, in the columns
    `split`, `group` (or `type`) and `patient` (or `field`, `group_id`), what it knows.

    Parameters
    ----------
    folder
        Holds `images/` and `labels/` with the same file names; or `img/` and `labelcol/`, as the published Medical Transformer
        wants them; or the `dataset.json` of the Medical Segmentation Decathlon or of nnU-Net; or `imagesTr/` and `labelsTr/`;
        or a folder for each patient with `...seg.nii.gz` and a file for each MR sequence, as BRATS comes;
        or images that were opened for review as a folder, or other folders of reviewed cases (then `images` says where their
        images are); or any of the first two once more in
        each of `train/`, `val/` and `test/`.
    layout
        `"folders"`, `"original"`, `"decathlon"`, `"nnunet"`, `"brats"` or `"cases"`; by default it is recognised.
    images, labels
        Folders, inside `folder` or elsewhere, if they are not called as above.
    rule
        What the numbers of the masks are, see `DataSet`; by default `"white"` in the original layout, else `"classes"`.

    Raises
    ------
    BadTrainingData
        If the folder is missing, is of no such layout, or holds no image with a mask.
    """
    from napari_medt.training import layouts

    if layout not in get_args(Layout):
        raise BadTrainingData(f"No layout is called {layout!r}", remedy="choose one of " + ", ".join(get_args(Layout)))
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise BadTrainingData(f"There is no folder {place}", remedy="check its name")
    return layouts.listed(
        place,
        layout,
        images=None if images is None else place / Path(images).expanduser(),
        labels=None if labels is None else place / Path(labels).expanduser(),
        rule=rule,
    )


def read_image(case: Case) -> Volume:
    """Read the image of a case, its files joined as channels.

    Raises
    ------
    MedtError
        If a file cannot be read, or the files do not fit each other.
    """
    volumes = [read(path, choose=case.choose) for path in case.images]
    return volumes[0] if len(volumes) == 1 else join_channels(volumes)


def load_case(
    case: Case, *, rule: MaskRule = "classes", values: Sequence[int] | None = None
) -> tuple[Volume, npt.NDArray[np.unsignedinteger]]:
    """Read a case.

    Parameters
    ----------
    case
        From `find_cases`.
    rule
        That of its data set.
    values
        Label values in the order of the classes, background first: the first becomes 0, the second 1 and so on. What is none
        of them becomes background. By default the values stay as they are.

    Returns
    -------
    image
        `(c, *spatial)`.
    labels
        `(*spatial)` on the grid of the image.

    Raises
    ------
    BadTrainingData
        If masks overlap or hold fractions.
    BadImage
        If a file cannot be read, or the mask does not fit the image.
    """
    volume = read_image(case)
    masks = read_segmentation(case.labels, like=volume)
    if len(masks) > 1 or masks[0].fraction:
        what = "fractions" if masks[0].fraction else f"{len(masks)} masks that may overlap"
        raise BadTrainingData(f"{case.labels.name} holds {what}", remedy="give one mask with a number for each class")
    labels = apply_rule(np.asarray(masks[0].array), rule)
    return volume, labels if values is None else renumbered(labels, values)


def apply_rule(labels: npt.NDArray[Any], rule: MaskRule) -> npt.NDArray[np.unsignedinteger]:
    """Label values from the numbers of a mask, see `DataSet`."""
    if rule == "classes":
        return labels
    limit = WHITE if rule == "white" and labels.max(initial=0) > 1 else 0
    return (labels > limit).astype(np.uint8)


def renumbered(labels: npt.NDArray[Any], values: Sequence[int]) -> npt.NDArray[np.unsignedinteger]:
    """Class numbers `0, 1, ...` from label values; what is none of `values` becomes 0.

    Examples
    --------
    >>> renumbered(np.array([0, 1, 4, 3], np.uint8), (0, 1, 4))
    array([0, 1, 2, 0], dtype=uint8)
    """
    table = np.zeros(max(int(labels.max(initial=0)), *values) + 1, np.uint8 if len(values) <= 256 else np.uint16)
    table[list(values)] = np.arange(len(values))
    found: npt.NDArray[np.unsignedinteger] = table[labels]
    return found
