"""Whose an image is, the same however it was opened: held-out cases are kept by patient, for good."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from napari_medt.io.kinds import FORMATS, HIDDEN, ending_of
from napari_medt.io.names import safe_name, without_ending

# Words in the names of folders of images, of whomever, or of masks.
_SET = re.compile(
    r"(image|img|pic|picture|photo|scan|slide|volume|case|patient|subject|dataset|input|dicom|nifti|label|mask|segmentation|"
    r"annotation)s?(tr|ts|va)?|data|raw|train(ing)?|val(id|idation)?|test(ing)?|dcm|nii|seg|gt|ground|truth|groundtruth"
)
# Folders of one patient's visits and kinds of scan, as BIDS has them.
_PARTS = re.compile(
    r"ses-\w+|(session|visit|series|time[-_ ]?point|follow[-_ ]?up)[-_ ]?\d*|baseline|anat|func|dwi|perf|fmap",
    re.IGNORECASE,
)
_CHANNELS_HERE = re.compile(r"images(tr|ts|va)", re.IGNORECASE)  # of nnU-Net
_ENDINGS = {ending for endings in FORMATS.values() for ending in endings}
_OFTEN = 4  # so many times more images a folder may hold where their names come again in others


def patient_of(path: Path, known: str = "") -> str:
    """Say whose an image is.

    Parameters
    ----------
    path
        Of the image.
    known
        What its file tells, as `Acquisition.patient`; it comes first.

    Returns
    -------
    str
        The folder of the image where that is one of several patients' folders; else the name of the image without its ending
        and without the number of a channel.
    """
    if known:
        return known
    place = Path(os.path.abspath(path))
    folder = place.parent
    while _PARTS.fullmatch(folder.name):
        folder = folder.parent
    own = folder.name and not _is_set(folder) and (folder != place.parent or _of_patients(folder.parent))
    return folder.name if own else _name_of(place)


def former_names(path: Path, patient: str) -> tuple[str, ...]:
    """What an image's patient may have been called by earlier versions, which decided by how it was opened."""
    place = Path(os.path.abspath(path))
    if patient in place.parent.parts and patient != _name_of(place):  # it was the folder then, too
        return ()
    return (place.name, safe_name(without_ending(place.name)), *(() if _is_set(place.parent) else (place.parent.name,)))


def _name_of(place: Path) -> str:
    name = safe_name(without_ending(place.name))
    channel = r"_\d{4}" if _CHANNELS_HERE.fullmatch(place.parent.name) else "_0000"
    return re.sub(f"{channel}$", "", name) or name


def _is_set(folder: Path) -> bool:
    """Whether the name of a folder says that images of several patients lie in it."""
    return all(map(_SET.fullmatch, re.split(r"[\W_]+", folder.name.lower())))


@cache
def _of_patients(folder: Path) -> bool:
    """Whether the folders in a folder are one for each patient: several, each with few images; asked once a session.

    Many folders with few images each are of patients, few with many images are sets of images. Names that come again in other
    folders, such as those of slices, speak for patients.
    """
    here = [names for place in _folders_in(folder) if (names := _images_in(place))]
    several, images = len(here) + len(_images_in(folder)), sum(map(len, here))
    again = images > len(set().union(*here))
    return several > 1 and images <= len(here) * several * (_OFTEN if again else 1)


def _folders_in(folder: Path) -> Iterator[Path]:
    try:
        places = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return
    yield from (place for place in places if not place.name.startswith(HIDDEN) and not _is_set(place))


def _images_in(folder: Path) -> set[str]:
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(HIDDEN)]
    except OSError:
        return set()
    return {without_ending(name) for name in names if ending_of(Path(name)) in _ENDINGS}
