"""Which images make up a cohort: the rows of a table, or what lies in a folder."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from napari_medt.core import BadImage, Cancel, Progress, silent
from napari_medt.io.folders import files_at, images_in
from napari_medt.io.names import names_from_paths, safe_name

COLUMNS = ("image", "case", "mask", "choose")


@dataclass(frozen=True)
class Case:
    """One image of a cohort.

    Attributes
    ----------
    name
        Safe as a file's name, and only once in the cohort.
    image
        File or folder.
    choose
        As `read` takes it.
    mask
        Where the mask goes, below the folder of results; empty for `NAME_mask` with the ending that suits the image.
    files
        What is read of a folder that holds more than this case.
    channels
        Further images of the same patient, whose channels follow those of the first.
    """

    name: str
    image: Path
    choose: tuple[str, ...] = ()
    mask: str = ""
    files: tuple[str, ...] = ()
    channels: tuple[Path, ...] = ()


def list_cases(
    source: str | os.PathLike[str],
    *,
    leave_out: Path | None = None,
    progress: Progress = silent,
    cancel: Cancel | None = None,
) -> tuple[Case, ...]:
    """List the images of a cohort.

    Parameters
    ----------
    source
        A table in CSV form with the column `image`, whose paths start from the table's folder, and if wanted `case` (a name),
        `mask` (where the mask goes below the folder of results) and `choose` (as `read` takes it, several with `|` between).
        Several images with `|` between become the channels of one. Or a folder, in which every image, OME-Zarr and DICOM
        series is a case.
    leave_out
        A folder that is not looked into, for results.
    progress, cancel
        Told about, and looked at between, DICOM headers.

    Raises
    ------
    BadImage
        If there is no case, or the table cannot be understood; says which row.
    """
    place = Path(source).expanduser().absolute()
    if place.is_dir():
        found = _in_folder(place, leave_out.absolute() if leave_out else None, progress, cancel)
        if not found:
            raise BadImage(f"There is no image in {place}", remedy="choose a folder with images")
        return found
    return _in_table(place)


# ---------------------------------------------------------------------------------------------------------------- table


def _in_table(place: Path) -> tuple[Case, ...]:
    rows = list(_rows(place))
    if not rows:
        raise BadImage(f"{place.name} lists no image", remedy="give each case a row under the heading image")
    places = [[_image_place(part, place.parent) for part in row["image"].split("|") if part.strip()] for _, row in rows]
    images = [first for first, *_ in places]
    chosen = [tuple(key.strip() for key in row["choose"].split("|") if key.strip()) for _, row in rows]
    names = names_from_paths(images, extra=["|".join(keys) for keys in chosen])
    given = [safe_name(row["case"]) for _, row in rows]
    names = [wanted or name for wanted, name in zip(given, names, strict=True)]
    masks = [_mask_place(row["mask"], line, place.name) for line, row in rows]
    for what, values in (("case", names), ("mask", masks)):
        first: dict[str, int] = {}
        for (line, _), value in zip(rows, values, strict=True):
            if value and first.setdefault(value.casefold(), line) != line:
                raise BadImage(
                    f"Rows {first[value.casefold()]} and {line} of {place.name} have the same {what}, {value}",
                    remedy=f"give each its own {what}, or none",
                )
    return tuple(
        Case(name, image, keys, mask, channels=tuple(more))
        for name, (image, *more), keys, mask in zip(names, places, chosen, masks, strict=True)
    )


def _image_place(text: str, folder: Path) -> Path:
    return Path(os.path.normpath(folder / Path(text.strip()).expanduser()))


def _rows(place: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows with an image, each with the number of its line and all of `COLUMNS`."""
    try:
        text = place.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadImage(f"{place.name} is not text in UTF-8", remedy="save it as CSV in UTF-8") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "its name is not valid"
        raise BadImage(f"The table {place} cannot be read: {why}", remedy="check the name and the folder") from error
    heading = text.partition("\n")[0]
    reader = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=heading.count), skipinitialspace=True)
    columns = {(name or "").strip().casefold(): name for name in reader.fieldnames or ()}
    if "image" not in columns:
        raise BadImage(
            f"{place.name} has no column image", remedy="write the heading image over the paths of the images"
        )
    for row in reader:
        values = {name: (row.get(columns.get(name, "")) or "").strip() for name in COLUMNS}
        if values["image"].strip("| "):
            yield reader.line_num, values
        elif any(values.values()):
            raise BadImage(
                f"Row {reader.line_num} of {place.name} names no image", remedy="add its path, or remove the row"
            )


def _mask_place(text: str, line: int, name: str) -> str:
    """A path below the folder of results, with slashes."""
    place = PurePosixPath(text.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or ":" in text:
        raise BadImage(f"Row {line} of {name} puts its mask outside the folder of results", remedy="give a plain name")
    return str(place) if text else ""


# --------------------------------------------------------------------------------------------------------------- folder


def _in_folder(folder: Path, leave_out: Path | None, progress: Progress, cancel: Cancel | None) -> tuple[Case, ...]:
    found = images_in(folder, leave_out=leave_out, progress=progress, cancel=cancel)
    extra = [image.choose[0] if image.choose else "" for image in found]
    names = names_from_paths([image.path for image in found], extra=extra, home=folder)
    cases = [Case(name, image.path, image.choose, files=image.files) for name, image in zip(names, found, strict=True)]
    return tuple(sorted(cases, key=lambda case: case.name))


def files_of(case: Case) -> Sequence[Path]:
    """The files whose content is that of a case's image, in the order of their names."""
    if case.files:
        return [Path(file) for file in case.files]
    return [file for image in (case.image, *case.channels) for file in files_at(image)]
