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
from napari_medt.core import Cancel, Progress, Volume, silent
from napari_medt.io.atomic import storage_error

if TYPE_CHECKING:
    from napari_medt.engine.cluster import Cluster
    from napari_medt.io.zarr_out import ZarrLabels
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
class Written:
    """What came of one image.

    Attributes
    ----------
    files
        The mask, and the uncertainty where it was wanted.
    marked
        Share of the image that is not background, where it is known.
    notes
        Of the image and of the prediction.
    """

    files: tuple[Path, ...]
    marked: float | None
    notes: tuple[str, ...]


class Work:
    """Segments images one by one with a model that is loaded once."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str], Model] = {}
        self._cluster: Cluster | None = None

    def open(self, model: str, device: str, compute: str) -> tuple[str, str, int]:
        """Load a model; its key, the digest of its weights, and how many workers a scheduler has for it.

        Raises
        ------
        MedtError
            If there is no such model or device, or the scheduler does not answer.
        """
        card = self._model(model, device).card
        where = self._place(compute)
        return card.key, card.sha256, 1 if isinstance(where, str) else where.workers

    def _place(self, compute: str) -> str | Cluster:
        """A scheduler that is looked for once, so that the workers keep the model from image to image."""
        if compute == "local":
            return compute
        from napari_medt.engine.cluster import Cluster

        if self._cluster is None or self._cluster.client.status != "running":
            self._cluster = Cluster(compute)
        return self._cluster

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
    ) -> tuple[dict[Path, str], tuple[str, ...]]:
        """Segment one image, or several whose channels belong together: files with their digests, and notes.

        Parameters are those of `run_cohort`, `Case` and `segment_to`.

        Raises
        ------
        MedtError
            If that cannot be done.
        """
        from napari_medt.io import join_channels, read

        loaded = self._model(model, device)
        progress(0, 1, "Reading")
        parts = [read(image, choose=choose, progress=progress, cancel=cancel) for image in images]
        volume = parts[0] if len(parts) == 1 else join_channels(parts)
        try:
            mask.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, mask.parent, doing="made") from error
        wishes = dict(options) | {"compute": self._place(compute)}
        done = segment_to(loaded, volume, mask, options=wishes, ours=ours, progress=progress, cancel=cancel)
        return {file: digest_of_output(file) for file in done.files}, done.notes

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


def segment_to(
    model: Model,
    volume: Volume,
    mask: Path,
    *,
    options: Mapping[str, Any],
    uncertainty: Path | None = None,
    ours: Sequence[str] | None = None,
    progress: Progress = silent,
    cancel: Cancel | None = None,
) -> Written:
    """Segment an image and write the mask and, where it is wanted, the uncertainty.

    A mask that goes into an OME-Zarr is written part by part while the image is segmented.

    Parameters
    ----------
    model, volume, progress, cancel
        As `predict` takes them.
    mask, uncertainty
        Where to; the latter is `map_place` of the former by default.
    options
        Of `predict`.
    ours
        Digests of files that may be replaced; others may hold somebody's corrections, so they are kept as `NAME.old1`. All
        may be replaced by default.

    Raises
    ------
    MedtError
        If that cannot be done.
    """
    from napari_medt.engine import predict
    from napari_medt.engine.suitability import check
    from napari_medt.io import write
    from napari_medt.io.writing import SEVERAL

    store = _store(mask, volume, model) if mask.name.lower().endswith(".zarr") else None
    prediction = predict(model, volume, into=store, progress=progress, cancel=cancel, **options)
    progress(0, 1, "Writing")
    files = [mask if store is None else store.path]
    with store or contextlib.nullcontext(), _kept_aside(files[0], ours):
        if store is None:
            write(prediction, mask, source=volume)
        else:
            store.finish(progress=progress, cancel=cancel)
    if prediction.uncertainty is not None:
        files.append(uncertainty or map_place(mask))
        with _kept_aside(files[1], ours):
            write(prediction.uncertainty, files[1], geometry=prediction.geometry)
    marked = None if store else float(np.count_nonzero(prediction.labels) / prediction.labels.size)
    notes = [*map(str, check(volume, model.card)), *volume.notes, *prediction.notes]
    if model.card.overlapping and not mask.name.lower().endswith(SEVERAL):
        notes.append(
            f"{files[0].name} holds one label a place, so where structures overlap it shows the last of them; "
            ".nii.gz, .seg.nrrd and .dcm hold all."
        )
    return Written(tuple(files), marked, tuple(dict.fromkeys(notes)))


def _store(mask: Path, volume: Volume, model: Model) -> ZarrLabels:
    from napari_medt.engine.results import label_type
    from napari_medt.io.needs import needs

    for module in ("zarr", "dask"):
        needs(module, "lazy", doing="Writing OME-Zarr")
    from napari_medt.io.zarr_out import create_zarr_labels

    names = model.card.classes
    return create_zarr_labels(
        mask,
        shape=volume.spatial_shape,
        dtype=label_type(len(names)),
        geometry=volume.geometry,
        names=dict(enumerate(names[1:], 1)),
    )


@contextlib.contextmanager
def _kept_aside(place: Path, ours: Sequence[str] | None) -> Iterator[None]:
    """Let a file be written where another lies; it comes back if nothing is written, and goes if it was the same."""
    before = digest_of_output(place) if ours is not None else ""
    if not before or before in (ours or ()):
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
