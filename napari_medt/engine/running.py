"""Segmenting an image of any size by overlapping windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from napari_medt.core import BadImage, Cancel, OutOfMemory, Prediction, Progress, Volume, silent
from napari_medt.engine.ladder import Effort, is_out_of_memory, steps_down
from napari_medt.engine.prepare import Prepared, fit
from napari_medt.engine.windows import blend_weights, pad_to_window, plan_windows

if TYPE_CHECKING:
    from napari_medt.zoo.model import Model

BATCH = {"cpu": 4, "cuda": 16, "mps": 8}
SMALLEST_WINDOW = 32


@dataclass(frozen=True)
class Wanted:
    """Which results are kept beside the labels."""

    probabilities: bool
    uncertainty: bool


def predict(
    model: Model,
    image: Volume | npt.ArrayLike,
    *,
    uncertainty: bool = False,
    probabilities: bool = False,
    batch: int | None = None,
    overlap: float = 0.5,
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
        Windows in one pass; by default 4 on the processor, 16 on CUDA, 8 on Apple's GPU. Does not change the result.
    overlap
        Share of a window that neighbours have in common, in [0, 1).
    progress, cancel
        Told about every batch of windows; looked at before every batch.

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
    """
    volume = image if isinstance(image, Volume) else Volume.from_array(image)
    card = model.card
    if card.spatial_dims > volume.geometry.ndim:
        raise BadImage(f"{card.title} segments 3D scans, but this is a 2D image", remedy="open the whole scan")
    prepared = fit(volume, card)
    report = progress or silent
    wanted = Wanted(probabilities, uncertainty)
    effort = Effort(model.device, batch or BATCH.get(model.device.type, 4), card.window)
    ladder = steps_down(effort, smallest_window=SMALLEST_WINDOW)
    notes: list[str] = []
    while True:
        try:
            results = _segment(model, prepared, effort, wanted, overlap, report, cancel)
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
        effort, sentence = step
        notes.append(sentence)
        report(0, 1, sentence)
        if model.device.type == "cuda":
            torch.cuda.empty_cache()
    if effort.device != model.device:
        model.net.to(model.device)
    labels, probability, entropy = results
    return Prediction(
        labels=labels,
        geometry=volume.geometry,
        classes=card.classes,
        probabilities=probability,
        uncertainty=entropy,
        notes=(*prepared.notes, *notes),
        model=card.key,
    )


Results = tuple[npt.NDArray[Any], npt.NDArray[np.float16] | None, npt.NDArray[np.float16] | None]


def _segment(
    model: Model,
    prepared: Prepared,
    effort: Effort,
    wanted: Wanted,
    overlap: float,
    report: Progress,
    cancel: Cancel | None,
) -> Results:
    """One attempt at a whole image with one effort."""
    shape = prepared.array.shape[1:]
    classes = len(model.card.classes)
    labels = np.zeros(shape, dtype=np.uint8 if classes <= 256 else np.uint16)
    probability = np.zeros((classes, *shape), dtype=np.float16) if wanted.probabilities else None
    entropy = np.zeros(shape, dtype=np.float16) if wanted.uncertainty else None
    model.net.to(effort.device).eval()
    dims = model.card.spatial_dims
    # A 2D model on a scan: every slice is an image of its own. Otherwise there is one, the whole.
    slices = list(np.ndindex(shape[: len(shape) - dims]))
    windows = plan_windows(shape[len(shape) - dims :], effort.window, overlap=overlap)
    total, done = len(slices) * len(windows), 0
    for index in slices:
        stitch = _Stitch(classes, shape[len(shape) - dims :], effort.window)
        for chunk in _batches(windows, effort.batch):
            if cancel is not None:
                cancel.check()
            report(done, total, "Segmenting")
            inputs = [prepared.window((*(slice(i, i + 1) for i in index), *where)) for where in chunk]
            inputs = [pad_to_window(x.reshape(x.shape[0], *x.shape[1 + len(index) :]), effort.window) for x in inputs]
            found = _probabilities(model, np.stack(inputs), effort.device)
            for where, values in zip(chunk, found, strict=True):
                for rows, finished in stitch.add(where, values):
                    _keep(finished, (*index, rows), labels, probability, entropy)
            done += len(chunk)
        for rows, finished in stitch.finish():
            _keep(finished, (*index, rows), labels, probability, entropy)
    report(total, total, "Segmented")
    return labels, probability, entropy


def _batches(windows: list[tuple[slice, ...]], size: int) -> Iterator[list[tuple[slice, ...]]]:
    for start in range(0, len(windows), size):
        yield windows[start : start + size]


def _probabilities(model: Model, inputs: npt.NDArray[np.float32], device: torch.device) -> npt.NDArray[np.float32]:
    """Softmax over classes, `(n, k, *window)`."""
    with torch.inference_mode():
        logits = model.net(torch.from_numpy(inputs).to(device))
        found: npt.NDArray[np.float32] = logits.float().softmax(1).cpu().numpy()
    return found


class _Stitch:
    """Blends windows that come row by row, and hands out rows that no later window reaches.

    Only the rows of windows in work are held: `classes x window height x width`.
    """

    def __init__(self, classes: int, shape: tuple[int, ...], window: tuple[int, ...]) -> None:
        self._shape, self._classes = shape, classes
        self._blend = blend_weights(window)
        self._first = 0  # first row that is held
        self._sum = np.zeros((classes, 0, *shape[1:]), dtype=np.float32)
        self._weight = np.zeros((0, *shape[1:]), dtype=np.float32)

    def add(
        self, where: tuple[slice, ...], values: npt.NDArray[np.float32]
    ) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """Add one window; yields `(rows, probabilities (k, rows, ...))` that are finished."""
        if where[0].start > self._first:
            yield from self._release(where[0].start)
        missing = where[0].stop - self._first - self._weight.shape[0]
        if missing > 0:
            self._sum = np.concatenate(
                (self._sum, np.zeros((self._classes, missing, *self._shape[1:]), np.float32)), axis=1
            )
            self._weight = np.concatenate((self._weight, np.zeros((missing, *self._shape[1:]), np.float32)))
        inside = tuple(slice(0, w.stop - w.start) for w in where)
        rows = slice(where[0].start - self._first, where[0].stop - self._first)
        blend = self._blend[inside]
        self._sum[(slice(None), rows, *where[1:])] += values[(slice(None), *inside)] * blend
        self._weight[(rows, *where[1:])] += blend

    def finish(self) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """The rows that are left."""
        yield from self._release(self._shape[0])

    def _release(self, stop: int) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        count = min(stop - self._first, self._weight.shape[0])
        if count > 0:
            yield slice(self._first, self._first + count), self._sum[:, :count] / self._weight[:count]
            self._sum, self._weight = self._sum[:, count:], self._weight[count:]
            self._first += count


def _keep(
    found: npt.NDArray[np.float32],
    where: tuple[Any, ...],
    labels: npt.NDArray[Any],
    probability: npt.NDArray[np.float16] | None,
    entropy: npt.NDArray[np.float16] | None,
) -> None:
    """Reduce finished rows `(k, rows, ...)` to what was asked for."""
    labels[where] = found.argmax(0)
    if probability is not None:
        probability[(slice(None), *where)] = found
    if entropy is not None:
        entropy[where] = -(found * np.log(np.maximum(found, 1e-12))).sum(0) / np.log(len(found))
