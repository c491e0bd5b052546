"""From files to layers: what is ambiguous is asked, and what is odd about a file is told once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from napari_medt._napari_io import asking
from napari_medt._napari_io.as_layers import image_layers, is_mask, mask_layer
from napari_medt._napari_io.finding import DICOM_ENDINGS, ENDINGS, LayerData, is_zarr_folder
from napari_medt.core import AmbiguousImage, BadImage, LabelMap, MedtError, Volume

NOTHING: list[LayerData] = [(None,)]  # type: ignore[list-item]
"""What napari takes for an answer without layers, as when a question was declined."""

T = TypeVar("T")


def open_files(places: Sequence[Path]) -> list[LayerData]:
    """Open each path as layers of its own; slices of DICOM that lie in one folder are opened as the scan they make.

    Raises
    ------
    MedtError
        With one sentence for the user, which napari's window shows too.
    """
    found: list[LayerData] = []
    try:
        for place in _as_scans(places):
            found += open_one(place)
    except MedtError as error:
        asking.tell(str(error), failed=True)
        raise
    return found or NOTHING


def open_one(place: Path) -> list[LayerData]:
    """Open one file or folder; an empty list where the user declined to answer a question about it."""
    read = _asked(lambda chosen: _read(place, chosen))
    if read is None:
        return []
    name = name_of(place)
    made: list[LayerData] = []
    notes: list[str] = []
    for what in read:
        if isinstance(what, Volume):
            layers, said = image_layers(what, name)
        else:
            layer, said = mask_layer(what, _name_of_mask(what, name, alone=len(read) == 1))
            layers = [layer]
        made += layers
        notes += [note for note in (*what.notes, *said) if note not in notes]
    if notes:
        asking.tell(f"{name}: {'. '.join(notes)}.")
    return made


def name_of(place: Path) -> str:
    """Name of a file without its ending, or of a folder, for layers."""
    lower = place.name.lower()
    ending = max((end for end in (*ENDINGS, ".seg.nrrd", ".ome.zarr") if lower.endswith(end)), key=len, default="")
    return place.name[: len(place.name) - len(ending)] or place.name


def _asked(read: Callable[[tuple[str, ...]], T]) -> T | None:
    """Read, and put what is ambiguous to the user, as long as there is a window; None if the user declined."""
    chosen: tuple[str, ...] = ()
    while True:
        try:
            return read(chosen)
        except AmbiguousImage as error:
            if not asking.has_window():
                raise
            key = asking.choose(error)
            if key is None:
                return None
            if key in chosen:
                raise
            chosen = (*chosen, key)


def _read(place: Path, chosen: tuple[str, ...]) -> list[Volume | LabelMap]:
    """Read the image of a file with the masks that belong to it, or its masks alone."""
    from napari_medt.io import read, read_segmentation

    if place.name.lower().endswith(".seg.nrrd") or _is_dicom_mask(place) or _is_zarr_mask(place):
        return [*read_segmentation(place, choose=chosen)]
    try:
        volume = read(place, choose=chosen)
    except AmbiguousImage:
        raise
    except BadImage:
        masks = _masks_alone(place)
        if not masks:
            raise
        return [label for mask in masks for label in read_segmentation(mask)]
    if not place.is_dir() and is_mask(volume, place):
        return [*read_segmentation(place, choose=chosen)]
    if is_zarr_folder(place) and (place / "labels").is_dir():
        return [volume, *read_segmentation(place, choose=chosen)]
    return [volume]


def _is_dicom_mask(place: Path) -> bool:
    if place.is_dir() or not place.name.lower().endswith(DICOM_ENDINGS):
        return False
    from napari_medt.io.needs import needs

    needs("pydicom", "volumes", doing="Reading DICOM")
    from napari_medt.io.dicom_files import read_header
    from napari_medt.io.dicom_header import is_mask as is_segmentation

    return is_segmentation(read_header(place))


def _is_zarr_mask(place: Path) -> bool:
    if not (place.is_dir() and is_zarr_folder(place)):
        return False
    from napari_medt.io.needs import needs

    needs("zarr", "lazy", doing="Reading OME-Zarr")
    from napari_medt.io.ngff import ome_attributes
    from napari_medt.io.zarr_nodes import open_node

    ome = ome_attributes(open_node(place).attrs.asdict())
    return "image-label" in ome or (bool(ome.get("labels")) and "multiscales" not in ome)


def _masks_alone(place: Path) -> tuple[Path, ...]:
    """Segmentations in a folder of DICOM without images."""
    if not place.is_dir() or is_zarr_folder(place):
        return ()
    from napari_medt.io.dicom_files import find

    found = find(place)
    return () if found.headers else tuple(Path(mask) for mask in found.masks)


def _as_scans(places: Sequence[Path]) -> list[Path]:
    """Replace several DICOM files of one folder by the folder, which holds the scan they are slices of."""
    slices = [place for place in places if place.is_file() and place.name.lower().endswith(DICOM_ENDINGS)]
    folders = {place.parent for place in slices}
    if len(slices) < 3 or len(slices) < len(places) or len(folders) > 1:
        return list(places)
    return [folders.pop()]


def _name_of_mask(mask: LabelMap, name: str, *, alone: bool) -> str:
    own = [text for value, text in sorted(mask.names.items()) if value]
    inside = name_of(Path(mask.source)) if mask.source else name
    if inside != name:
        return f"{name}, {inside}"
    if alone:
        return name
    return f"{name}, {own[0] if len(own) == 1 else 'mask'}"
