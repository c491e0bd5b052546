"""Which prediction belongs to which reference: two files, two folders, or the rows of a table."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_medt.core import BadImage

_PARTS = re.compile(r"[_ .-](mask|masks|seg|segmentation|pred|prediction|label|labels|gt|truth|ref|reference|0000)$")
_MOST_TOLD = 5


@dataclass(frozen=True)
class CasePair:
    """One case: what is measured (a mask, or an image for a model), and what it is held to."""

    name: str
    prediction: Path
    reference: Path


def list_pairs(first: Path, second: Path | None = None) -> tuple[CasePair, ...]:
    """Find the cases.

    Parameters
    ----------
    first
        A mask (or image), a folder of them, or, if `second` is not given, a table in CSV form with the columns `prediction`
        (or `image`) and `reference`, and `case` if wanted, whose paths start from the table's folder; or a folder with `img`
        and `labelcol` in it.
    second
        The reference, or the folder of references: files belong together whose names are equal up to their ending and words
        such as `_mask`, `_seg`, `_pred` or `_gt` at the end.

    Returns
    -------
    tuple of CasePair
        One for each reference, by name. Of `first`, files that no reference belongs to are left out.

    Raises
    ------
    BadImage
        If something is missing, or a reference has no prediction or several.
    """
    for place in (first, second):
        if place is not None and not place.exists():
            raise BadImage(f"There is no file {place}", remedy="check the name and the folder")
    if second is None:
        if first.suffix.lower() in (".csv", ".tsv"):
            return _in_table(first)
        if (first / "img").is_dir() and (first / "labelcol").is_dir():
            return _in_folders(first / "img", first / "labelcol")
        raise BadImage(
            f"{first.name} has nothing to be compared with", remedy="give the reference after it, or a table of both"
        )
    folders = [_is_folder_of_masks(place) for place in (first, second)]
    if all(folders):
        return _in_folders(first, second)
    if any(folders):
        raise BadImage(
            f"{first.name} and {second.name} are a file and a folder of files", remedy="give two files or two folders"
        )
    return (CasePair(_stem(second.name), first, second),)


def left_out(first: Path, pairs: Sequence[CasePair]) -> tuple[str, ...]:
    """Names of the predictions in a folder that no reference belongs to."""
    folder = first / "img" if (first / "img").is_dir() else first
    if not _is_folder_of_masks(folder):
        return ()
    used = {pair.prediction for pair in pairs}
    return tuple(path.name for path in _files(folder).values() if path not in used)


def _is_folder_of_masks(place: Path) -> bool:
    from napari_medt.io.kinds import kind_of

    if not place.is_dir() or kind_of(place) == "OME-Zarr":
        return False
    return len([path for path in place.iterdir() if path.is_file()]) != 1 or bool(_files(place))


def _stem(name: str) -> str:
    from napari_medt.io.names import without_ending

    return without_ending(name)


# --------------------------------------------------------------------------------------------------------------- folders


def _in_folders(first: Path, second: Path) -> tuple[CasePair, ...]:
    predictions, references = _files(first), _files(second)
    if not references:
        raise BadImage(f"There is no mask in {second}", remedy="choose the folder of the references")
    pairs, missing = [], []
    for stem, reference in references.items():
        found = [predictions[stem]] if stem in predictions else _alike(stem, predictions)
        if len(found) > 1:
            names = " and ".join(path.name for path in found[:_MOST_TOLD])
            raise BadImage(f"{names} could each belong to {reference.name}", remedy="say which in a table")
        if found:
            pairs.append(CasePair(_plain(stem), found[0], reference))
        else:
            missing.append(reference.name)
    if missing:
        told = ", ".join(missing[:_MOST_TOLD]) + (" ..." if len(missing) > _MOST_TOLD else "")
        raise BadImage(
            f"{len(missing)} of {len(references)} references have no prediction in {first}: {told}",
            remedy="predict them too, or list the cases to compare in a table",
        )
    alike = {pair.name for pair in pairs}
    if len(alike) < len(pairs):
        pairs = [CasePair(_stem(pair.reference.name), pair.prediction, pair.reference) for pair in pairs]
    return tuple(pairs)


def _files(folder: Path) -> dict[str, Path]:
    """Images and masks in a folder and the folders in it, by their place in it without the ending."""
    from napari_medt.io.kinds import FORMATS, HIDDEN

    endings = tuple(ending for found in FORMATS.values() for ending in found)
    files: dict[str, Path] = {}
    for home, folders, names in os.walk(folder):
        zarrs = [name for name in folders if name.lower().endswith(".zarr")]
        folders[:] = sorted(name for name in folders if name not in zarrs and not name.startswith(HIDDEN))
        for name in sorted([*names, *zarrs]):
            if name.startswith(".") or not name.lower().endswith(endings):
                continue
            place = Path(home, name)
            stem = _stem(place.relative_to(folder).as_posix())
            if stem in files:
                raise BadImage(
                    f"{files[stem].name} and {name} in {folder} are of the same case", remedy="remove one of them"
                )
            files[stem] = place
    return files


def _plain(stem: str) -> str:
    """A name without the words at its end that say what the file is."""
    while (shorter := _PARTS.sub("", stem, count=1)) != stem and shorter:
        stem = shorter
    return stem


def _alike(stem: str, files: Mapping[str, Path]) -> list[Path]:
    return [path for other, path in files.items() if _plain(other) == _plain(stem)]


# ----------------------------------------------------------------------------------------------------------------- table


def _in_table(table: Path) -> tuple[CasePair, ...]:
    try:
        lines = table.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadImage(f"The table {table} cannot be read", remedy="save it as CSV in UTF-8") from error
    heading = lines[0] if lines else ""
    reader = csv.DictReader(lines, delimiter=max(",;\t", key=heading.count), skipinitialspace=True)
    columns = {(name or "").strip().casefold(): name for name in reader.fieldnames or ()}
    first = columns.get("prediction", columns.get("image"))
    if first is None or "reference" not in columns:
        raise BadImage(
            f"{table.name} needs the columns prediction and reference",
            remedy="write these headings over the paths; case is for names, image for what a model is to segment",
        )
    pairs = []
    for row in reader:
        values = [(row.get(name) or "").strip() for name in (first, columns["reference"])]
        if not any(values):
            continue
        if not all(values):
            raise BadImage(f"Row {reader.line_num} of {table.name} names only one file", remedy="add the other")
        places = [Path(os.path.normpath(table.parent / Path(value).expanduser())) for value in values]
        missing = [place for place in places if not place.exists()]
        if missing:
            raise BadImage(f"Row {reader.line_num} of {table.name} names {missing[0]}, which does not exist")
        name = (row.get(columns.get("case", "")) or "").strip() or _plain(_stem(places[1].name))
        pairs.append(CasePair(name, *places))
    if not pairs:
        raise BadImage(f"{table.name} lists no case", remedy="give each case a row")
    _check_names(pairs, table)
    return tuple(pairs)


def _check_names(pairs: Sequence[CasePair], table: Path) -> None:
    names = [pair.name for pair in pairs]
    for name in names:
        if names.count(name) > 1:
            raise BadImage(
                f"{table.name} has the case {name} twice", remedy="give each its own name in the column case"
            )
