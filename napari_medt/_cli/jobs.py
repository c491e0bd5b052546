"""Many images in, many masks out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_medt.core import BadImage, Cancel, Cancelled, MedtError, Progress

if TYPE_CHECKING:
    from napari_medt.zoo import Model


ENDINGS, MAP_ENDINGS = (".tif", ".tiff", ".png"), (".tif", ".tiff")


@dataclass(frozen=True)
class Job:
    """One image and where its results go."""

    image: Path
    mask: Path
    uncertainty: Path | None = None


def plan_outputs(images: Sequence[Path], *, output: Path, uncertainty: Path | None = None) -> list[Job]:
    """Decide where each result goes, before anything is computed.

    Parameters
    ----------
    images
        Paths as the user gave them.
    output, uncertainty
        A file for one image; a folder, which need not exist yet, for several. A name without an ending is a folder.

    Returns
    -------
    list of Job
        In the order of `images`; no two results share a path.

    Raises
    ------
    BadImage
        If several images would go into one file, or a result would overwrite an image.
    """
    paths = list(dict.fromkeys(images))
    names = _distinct_names(paths)
    masks = _targets(paths, output, [f"{name}_mask.tif" for name in names])
    maps = (
        _targets(paths, uncertainty, [f"{name}_uncertainty.tif" for name in names])
        if uncertainty
        else [None] * len(paths)
    )
    jobs = [Job(image, mask, extra) for image, mask, extra in zip(paths, masks, maps, strict=True)]
    inputs = {path.resolve() for path in paths}
    results = [path for job in jobs for path in (job.mask, job.uncertainty) if path is not None]
    for path in results:
        if path.suffix.lower() not in (ENDINGS if path in masks else MAP_ENDINGS):
            raise BadImage(
                f"{path} has an ending that results cannot be written with", remedy="use .tif, or .png for a 2D mask"
            )
        if path.resolve() in inputs:
            raise BadImage(f"The result {path} would overwrite an image", remedy="choose another output")
    if len({path.resolve() for path in results}) < len(results):
        raise BadImage("Two results would go into the same file", remedy="give different outputs")
    return jobs


def _targets(images: Sequence[Path], wanted: Path, names: Sequence[str]) -> list[Path]:
    is_folder = wanted.is_dir() or not wanted.suffix
    if is_folder:
        return [wanted / name for name in names]
    if len(images) > 1:
        raise BadImage(
            f"{len(images)} images cannot all go into the one file {wanted}", remedy="give a folder as the output"
        )
    return [wanted]


def _distinct_names(images: Sequence[Path]) -> list[str]:
    """Names for the results: that of the image, led by its folder or a number where two are alike."""
    names = [image.stem for image in images]
    names = _lengthen_where_alike(names, [f"{image.resolve().parent.name}_{image.stem}" for image in images])
    names = _lengthen_where_alike(
        names, [f"{name}_{image.suffix[1:]}" for name, image in zip(names, images, strict=True)]
    )
    return _lengthen_where_alike(names, [f"{number}_{name}" for number, name in enumerate(names, start=1)])


def _lengthen_where_alike(names: Sequence[str], longer: Sequence[str]) -> list[str]:
    counts = Counter(names)
    return [long if counts[name] > 1 else name for name, long in zip(names, longer, strict=True)]


def predict_files(
    jobs: Sequence[Job], model_name: str, *, device: str = "auto", progress: Progress, cancel: Cancel
) -> list[str]:
    """Segment the images one by one; an image that fails does not stop the others.

    Parameters
    ----------
    jobs
        What goes where.
    model_name
        As `load_model` takes it.
    device
        As `load_model` takes it.
    progress
        Told the windows of the image at work.
    cancel
        Looked at between windows and images.

    Returns
    -------
    list of str
        One sentence for each image that failed.

    Raises
    ------
    BadModel
        If the model cannot be loaded.
    DeviceError
        If the device is missing.
    Cancelled
        If the user cancelled; results already written stay.
    """
    from napari_medt._cli.console import out
    from napari_medt.zoo import load_model

    for job in jobs:
        for path in (job.mask, job.uncertainty):
            if path is not None:
                _make_folder(path.parent)
    progress(0, 1, f"Loading {model_name}")
    model = load_model(model_name, device=device)
    failures = []
    for number, job in enumerate(jobs, start=1):
        cancel.check()
        prefix = f"{number}/{len(jobs)} {job.image.name}" if len(jobs) > 1 else job.image.name

        def report(done: int, total: int, message: str = "", /, *, prefix: str = prefix) -> None:
            progress(done, total, f"{prefix} {message}".rstrip())

        try:
            sentences = _predict_one(job, model, progress=report, cancel=cancel)
        except Cancelled:
            raise
        except MedtError as error:
            failures.append(str(error))
            continue
        for sentence in sentences:
            out.print(sentence, highlight=False, markup=False)
    return failures


def _make_folder(folder: Path) -> None:
    from napari_medt.io.atomic import storage_error

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder, doing="made") from error


def _predict_one(job: Job, model: Model, *, progress: Progress, cancel: Cancel) -> list[str]:
    from napari_medt.engine import predict
    from napari_medt.io import read, write

    volume = read(job.image)
    prediction = predict(model, volume, uncertainty=job.uncertainty is not None, progress=progress, cancel=cancel)
    written = write(prediction, job.mask)
    marked = np.count_nonzero(prediction.labels) / prediction.labels.size
    sentences = [f"{job.image} -> {written}: {marked:.1%} of the image marked by {prediction.model or model.card.key}"]
    if job.uncertainty is not None and prediction.uncertainty is not None:
        doubt = prediction.uncertainty.astype(np.float32)
        sentences.append(f"{job.image} -> {write(doubt, job.uncertainty, geometry=prediction.geometry)}: uncertainty")
    return sentences + [f"Note: {note}" for note in prediction.notes]
