"""Segmenting an image of any size by overlapping windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice, product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from napari_medt.core import BadImage, Cancel, OutOfMemory, Prediction, Progress, Volume, silent
from napari_medt.engine.ladder import Effort, free_cached, is_out_of_memory, steps_down
from napari_medt.engine.prepare import Prepared, fit
from napari_medt.engine.results import Results, Wanted
from napari_medt.engine.stitch import Stitch
from napari_medt.engine.windows import pad_to_window, plan_windows
from napari_medt.nets.layers import with_background

if TYPE_CHECKING:
    from napari_medt.zoo.model import Model

BATCH = {"cpu": 4, "cuda": 16, "mps": 8}  # windows of 128 x 128 pixels in one pass, fewer of larger ones
SMALLEST_WINDOW = 32


def predict(
    model: Model,
    image: Volume | npt.ArrayLike,
    *,
    uncertainty: bool = False,
    probabilities: bool = False,
    batch: int | None = None,
    overlap: float | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Prediction:
    """Segment an image.

    Windows overlap and are blended with Gaussian weights; rows of windows are finished as they pass, so that memory does not
    grow with the number of classes times the image. When memory runs out, less is tried step by step, and the result's notes
    say so.

    Parameters
    ----------
    model
        From `load_model`.
    image
        A `Volume`, or an array as `Volume.from_array` takes it; a scan is segmented slice by slice by a 2D model.
    uncertainty, probabilities
        Keep the entropy of the class probabilities, scaled to [0, 1]; keep the probabilities themselves.
    batch
        Windows in one pass; by default 4 on the processor, 16 on CUDA, 8 on Apple's GPU, fewer where windows are larger than
        128 x 128 pixels. Does not change the result.
    overlap
        Share of a window that neighbours have in common, in [0, 1); by default as in `plan_windows`.
    progress, cancel
        Told about every batch of windows and every step down; looked at before every batch.

    Returns
    -------
    Prediction
        In the geometry of the image.

    Raises
    ------
    BadImage
        If the image does not fit the model.
    Cancelled
        If `cancel` was set.
    OutOfMemory
        If not even the smallest effort had enough memory.
    ValueError
        If `batch` or `overlap` is impossible.
    """
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    volume = image if isinstance(image, Volume) else Volume.from_array(image)
    card = model.card
    if card.spatial_dims > volume.geometry.ndim:
        raise BadImage(f"{card.title} segments 3D scans, but this is a 2D image", remedy="open the whole scan")
    prepared = fit(volume, card)
    report = progress or silent
    wanted = Wanted(probabilities, uncertainty)
    effort = Effort(model.device, batch or default_batch(model.device, card.window), card.window)
    ladder = steps_down(effort, smallest_window=SMALLEST_WINDOW)
    notes: list[str] = []
    try:
        while True:
            try:
                results = _segment(model, prepared, effort, wanted, overlap, _saying(report, notes), cancel)
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                step = next(ladder, None)
                if step is None:
                    raise OutOfMemory(
                        "There was not enough memory, even for one small window at a time",
                        remedy="close other programs, or segment a part of the image",
                    ) from error
            # Only here has the failed attempt let go of its arrays.
            effort, sentence = step
            notes.append(sentence)
            report(0, 1, sentence)
            free_cached(model.device)
    finally:
        if effort.device != model.device:
            _bring_back(model)
    return Prediction(
        labels=results.labels,
        geometry=volume.geometry,
        classes=card.classes,
        probabilities=results.probabilities,
        uncertainty=results.uncertainty,
        notes=(*prepared.notes, *notes),
        model=card.key,
    )


def default_batch(device: torch.device, window: tuple[int, ...]) -> int:
    """Windows in one pass, so that they hold no more samples than `BATCH` windows of 128 x 128 together."""
    most = BATCH.get(device.type, BATCH["cpu"])
    return max(1, min(most, most * 128**2 // math.prod(window)))


def _saying(report: Progress, notes: list[str]) -> Progress:
    """Progress that goes on saying what was last done about missing memory."""

    def say(done: int, total: int, message: str = "", /) -> None:
        report(done, total, f"{message}. {notes[-1]}" if notes else message)

    return say


def _bring_back(model: Model) -> None:
    """Put the network where its model says it is; where memory is still short, the next prediction tries again."""
    try:
        model.net.to(model.device)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise


def _segment(
    model: Model,
    prepared: Prepared,
    effort: Effort,
    wanted: Wanted,
    overlap: float | None,
    report: Progress,
    cancel: Cancel | None,
) -> Results:
    """One attempt at a whole image with one effort."""
    shape, classes, dims = prepared.spatial_shape, len(model.card.classes), model.card.spatial_dims
    results = Results.empty(shape, classes, wanted)
    model.net.to(effort.device).eval()
    # A 2D model on a scan: every slice is an image of its own. Otherwise there is one, the whole.
    slices, plane = list(np.ndindex(shape[:-dims])), shape[-dims:]
    windows = plan_windows(plane, effort.window, overlap=overlap)
    total, done = len(slices) * len(windows), 0
    current, stitch = slices[0], Stitch(classes, plane, effort.window)
    for chunk in _batches(product(slices, windows), effort.batch):
        if cancel is not None:
            cancel.check()
        report(done, total, f"Segmenting, {done} of {total} windows are done")
        found = _probabilities(model, np.stack([_cut(prepared, *job, effort.window) for job in chunk]), effort.device)
        for (index, where), values in zip(chunk, found, strict=True):
            if index != current:
                for rows, finished in stitch.finish():
                    results.keep(finished, (*current, rows))
                current, stitch = index, Stitch(classes, plane, effort.window)
            for rows, finished in stitch.add(where, values):
                results.keep(finished, (*index, rows))
        done += len(chunk)
    for rows, finished in stitch.finish():
        results.keep(finished, (*current, rows))
    report(total, total, "Segmented")
    return results


Job = tuple[tuple[int, ...], tuple[slice, ...]]


def _batches(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
    remaining = iter(jobs)
    while chunk := list(islice(remaining, size)):
        yield chunk


def _cut(
    prepared: Prepared, index: tuple[int, ...], where: tuple[slice, ...], window: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """One window `(c, *window)` of one slice."""
    part = prepared.window((*(slice(i, i + 1) for i in index), *where))
    return pad_to_window(part.reshape(part.shape[0], *part.shape[1 + len(index) :]), window)


def _probabilities(model: Model, inputs: npt.NDArray[np.float32], device: torch.device) -> npt.NDArray[np.float32]:
    """Softmax over classes, `(n, k, *window)`."""
    with torch.inference_mode():
        logits = with_background(model.net(torch.from_numpy(inputs).to(device)))
        found: npt.NDArray[np.float32] = logits.float().softmax(1).cpu().numpy()
    return found
