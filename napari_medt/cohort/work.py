"""The work on one image, for a process of its own: read, segment, write."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medt.cohort.manifest import digest_of_output
from napari_medt.core import Cancel, Prediction, Progress, Volume
from napari_medt.io.atomic import storage_error

if TYPE_CHECKING:
    from napari_medt.zoo import Model

MASK_ENDINGS = {
    "NIfTI": ".nii.gz",
    "DICOM": ".dcm",
    "NRRD": ".seg.nrrd",
    "MetaImage": ".mha",
    "OME-Zarr": ".ome.zarr",
    "slide": ".ome.zarr",
}
_MAP_ENDINGS = {".dcm": ".nii.gz", ".seg.nrrd": ".nrrd", ".ome.zarr": ".ome.tif", ".zarr": ".ome.tif", ".png": ".tif"}


@dataclass(frozen=True)
class Done:
    """What came of one image.

    Attributes
    ----------
    outputs
        Files written, the mask first, with their digests.
    marked
        Share of the image that is not background.
    notes
        Of the image and of the prediction.
    """

    outputs: Mapping[Path, str]
    marked: float
    notes: tuple[str, ...]


class Work:
    """Segments images one by one with a model that is loaded once."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str], Model] = {}

    def open(self, model: str, device: str, compute: str) -> tuple[str, str, int]:
        """Load a model; its key, the digest of its weights, and how many workers a scheduler has for it.

        Raises
        ------
        MedtError
            If there is no such model or device, or the scheduler does not answer.
        """
        card = self._model(model, device).card
        if compute == "local":
            return card.key, card.sha256, 1
        from napari_medt.engine.cluster import count_workers

        return card.key, card.sha256, count_workers(compute)

    def segment(
        self,
        images: Sequence[Path],
        mask: Path,
        *,
        model: str,
        device: str,
        compute: str,
        choose: Sequence[str],
        options: Mapping[str, Any],
        ours: Sequence[str],
        progress: Progress,
        cancel: Cancel,
    ) -> Done:
        """Segment one image, or several whose channels belong together.

        Parameters are those of `run_cohort`, `Case` and `write_results`.

        Raises
        ------
        MedtError
            If that cannot be done.
        """
        from napari_medt.engine import predict
        from napari_medt.io import join_channels, read

        loaded = self._model(model, device)
        progress(0, 1, "Reading")
        parts = [read(image, choose=choose) for image in images]
        volume = parts[0] if len(parts) == 1 else join_channels(parts)
        prediction = predict(loaded, volume, progress=progress, cancel=cancel, **options)
        cancel.check()
        progress(0, 1, "Writing")
        written = write_results(prediction, mask, source=volume, ours=ours)
        notes = tuple(dict.fromkeys((*volume.notes, *prediction.notes)))
        return Done(written, marked_share(prediction), notes)

    def _model(self, name: str, device: str) -> Model:
        from napari_medt.zoo import load_model

        if (name, device) not in self._loaded:
            self._loaded[name, device] = load_model(name, device=device)
        return self._loaded[name, device]


def mask_ending(image: Path) -> str:
    """The ending of a mask that suits an image; that of TIFF where the image cannot be looked at."""
    from napari_medt.core import BadImage
    from napari_medt.io.kinds import kind_of

    try:
        return MASK_ENDINGS.get(kind_of(image), ".tif")
    except BadImage:
        return ".tif"


def map_place(mask: Path) -> Path:
    """Where the uncertainty that belongs to a mask goes: beside it, in a format that holds fractions."""
    from napari_medt.io.writing import ENDINGS

    ending = next((end for end in (".ome.zarr", *ENDINGS) if mask.name.lower().endswith(end)), mask.suffix)
    stem = mask.name[: len(mask.name) - len(ending)].removesuffix("_mask")
    return mask.with_name(f"{stem}_uncertainty{_MAP_ENDINGS.get(ending.lower(), ending)}")


def marked_share(prediction: Prediction) -> float:
    """Share of the image that is not background."""
    return float(np.count_nonzero(prediction.labels) / prediction.labels.size)


def write_results(prediction: Prediction, mask: Path, *, source: Volume, ours: Sequence[str] = ()) -> dict[Path, str]:
    """Write the mask and, where there is one, the uncertainty beside it.

    What lay there before may hold somebody's corrections, so it is kept as `NAME.old1`, unless it is known to be ours.

    Parameters
    ----------
    prediction, source
        What was found, and in which image.
    mask
        Where to; its folder is made.
    ours
        Digests of files that may be replaced.

    Returns
    -------
    dict
        Paths with digests, the mask first.
    """
    from napari_medt.io import write

    try:
        mask.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, mask.parent, doing="made") from error
    places = [mask]
    with _kept_aside(mask, ours):
        write(prediction, mask, source=source)
    if prediction.uncertainty is not None:
        places.append(map_place(mask))
        with _kept_aside(places[1], ours):
            write(prediction.uncertainty.astype(np.float32), places[1], geometry=prediction.geometry)
    return {place: digest_of_output(place) for place in places}


@contextlib.contextmanager
def _kept_aside(place: Path, ours: Sequence[str]) -> Iterator[None]:
    """Let a file be written where another lies; it comes back if nothing is written, and goes if it was the same."""
    before = digest_of_output(place)
    if not before or before in ours:
        yield
        return
    old = next(free for i in range(1, 10_000) if not (free := place.with_name(f"{place.name}.old{i}")).exists())
    try:
        os.replace(place, old)
    except OSError as error:
        raise storage_error(error, place) from error
    try:
        yield
    except BaseException:
        os.replace(old, place)
        raise
    if digest_of_output(place) == before:
        shutil.rmtree(old) if old.is_dir() else old.unlink()
