"""Probabilities that are as often right as they say: one temperature for a model, found on images it has not learnt from.

Logits are divided by the temperature before they become probabilities (Guo, Pleiss, Sun and Weinberger 2017, "On calibration
of modern neural networks"). What is likeliest in a window stays so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from napari_medt.core import BadTrainingData, Cancel, Progress, Volume, silent
from napari_medt.engine.prepare import fit
from napari_medt.engine.windows import Layout

if TYPE_CHECKING:
    from napari_medt.zoo.model import Model

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Case = tuple[Volume | npt.ArrayLike, npt.ArrayLike]
SAMPLES = 200_000  # of one image that are looked at, drawn evenly
WINDOWS = 64  # of one image that are looked at, spread over it
COOLEST, HOTTEST = 0.05, 20.0


def fit_temperature(
    model: Model, cases: Sequence[Case], *, progress: Progress | None = None, cancel: Cancel | None = None
) -> float:
    """The temperature at which a model's probabilities fit the masks best: where the negative log-likelihood is least.

    Parameters
    ----------
    model
        Its present temperature does not matter.
    cases
        Images and their masks, which the model must not have learnt from; where classes overlap, `(k, *spatial)`, a mask for
        each.
    progress, cancel
        Told about, and looked at before, every image.

    Raises
    ------
    BadTrainingData
        If there is no case, or a mask does not fit its image or the classes of the model.
    """
    logs, labels = _answers(model, cases, progress or silent, cancel)
    return _best(logs, labels)


def calibrate(
    model: Model, cases: Sequence[Case], *, progress: Progress | None = None, cancel: Cancel | None = None
) -> Model:
    """Keep a model with a fitted temperature as its next version; parameters and errors as of `fit_temperature`.

    The card says how far off the probabilities were before and after. Its scores stay those of the version it comes from,
    since the same network still answers.

    Raises
    ------
    StorageError
        If the version cannot be stored.
    """
    from napari_medt.zoo.store import save_version

    logs, labels = _answers(model, cases, progress or silent, cancel)
    temperature = round(_best(logs, labels), 4)
    before = expected_calibration_error(_softmax(logs, model.card.temperature), labels)
    after = expected_calibration_error(_softmax(logs, temperature), labels)
    images = f"{len(cases)} image{'s' if len(cases) > 1 else ''}"
    note = (
        f"Probabilities were calibrated on {images} with temperature {temperature:.3g}: "
        f"they were {before:.1%} off on average, and are now {after:.1%} off."
    )
    changed = replace(model, card=model.card.model_copy(update={"temperature": temperature}))
    return save_version(changed, model.net, notes=(*model.card.notes, note), scores=model.card.scores)


def expected_calibration_error(probabilities: Array, labels: Array, *, bins: int = 15) -> float:
    """How far probabilities are from how often they are right, on average over all samples.

    Samples are sorted by the probability of their likeliest class into bins of equal width; of each, the mean probability is
    compared with the share that is right (Naeini, Cooper and Hauskrecht 2015).

    Parameters
    ----------
    probabilities
        `(k, ...)`, their sum over the first axis 1.
    labels
        `(...)`, the true classes.

    Returns
    -------
    float
        In [0, 1], 0 for perfect calibration.

    Examples
    --------
    >>> import numpy as np
    >>> float(expected_calibration_error(np.array([[0.75] * 4, [0.25] * 4]), np.array([0, 0, 0, 1])))
    0.0
    """
    sure = probabilities.max(0).ravel().astype(np.float64)
    right = (probabilities.argmax(0) == labels).ravel()
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, sure, minlength=bins) - np.bincount(place, right, minlength=bins)
    return float(np.abs(gaps).sum() / sure.size)


def _best(logs: Floats, labels: Array) -> float:
    """The temperature of the least negative log-likelihood, which is convex in its inverse."""

    def loss(log_temperature: float) -> float:
        scaled = logs / math.exp(log_temperature)
        scaled -= scaled.max(0)
        own = np.take_along_axis(scaled, labels[None], 0)[0]
        return float((np.log(np.exp(scaled).sum(0)) - own).mean(dtype=np.float64))

    found = minimize_scalar(
        loss, bounds=(math.log(COOLEST), math.log(HOTTEST)), method="bounded", options={"xatol": 1e-4}
    )
    return math.exp(float(found.x))


def _softmax(logs: Floats, temperature: float) -> Floats:
    scaled = logs / temperature
    scaled = np.exp(scaled - scaled.max(0))
    found: Floats = scaled / scaled.sum(0)
    return found


def _answers(
    model: Model, cases: Sequence[Case], report: Progress, cancel: Cancel | None
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Logarithms of probabilities at temperature 1, `(k, n)`, of samples of all images, and their true classes, `(n)`."""
    if not cases:
        raise BadTrainingData(
            "There is no image to calibrate on", remedy="give images with masks the model has not seen"
        )
    logs, labels = [], []
    for done, (image, mask) in enumerate(cases):
        if cancel is not None:
            cancel.check()
        report(done, len(cases), f"Calibrating, {done} of {len(cases)} images are done")
        found, true = _of_one(
            model, image if isinstance(image, Volume) else Volume.from_array(image), np.asarray(mask), done
        )
        logs.append(found)
        labels.append(true)
    report(len(cases), len(cases), "Calibrated")
    return np.concatenate(logs, axis=1), np.concatenate(labels)


def _of_one(model: Model, volume: Volume, mask: Array, seed: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The same of one image: windows spread over it, as `predict` cuts them, and samples drawn from these."""
    import torch

    from napari_medt.engine.blocks import load, positions
    from napari_medt.engine.ladder import Effort
    from napari_medt.engine.testtime import Passes

    card = model.card
    wanted = (card.chances, *volume.spatial_shape) if card.overlapping else volume.spatial_shape
    if mask.shape != wanted:
        raise BadTrainingData(
            f"The mask has {mask.shape} samples but the image has {wanted}",
            remedy="give the mask that belongs to this image",
        )
    highest = 1 if card.overlapping else len(card.classes) - 1
    if mask.min() < 0 or mask.max() > highest:
        raise BadTrainingData(
            f"The mask holds values from {mask.min()} to {mask.max()}, but {card.title} knows 0 to {highest}",
            remedy="give a mask with the labels of the model",
        )
    prepared = fit(volume, card)
    true: Any = np.stack([prepared.grid.labels(part) for part in (mask if card.overlapping else mask[None])])
    shape, dims = prepared.spatial_shape, card.spatial_dims
    slices = product(*(range(size) for size in shape[:-dims]))
    jobs = [(index, where) for index in slices for where in Layout.of(shape[-dims:], card.window, overlap=0)]
    jobs = [jobs[i] for i in np.unique(np.linspace(0, len(jobs) - 1, min(WINDOWS, len(jobs))).round().astype(int))]
    effort = Effort(model.device, 1, card.window)
    passes = Passes(replace(model, card=card.model_copy(update={"temperature": 1.0})), model.device)
    model.net.eval()
    rng = np.random.default_rng(seed)
    logs, labels = [], []
    for index, where in jobs:
        chunk = [(index, where)]
        found = passes(load(prepared, chunk, effort, "smooth"), positions(chunk, effort, shape[-dims:]), [index])[0]
        inside = tuple(slice(0, min(w.stop, size) - w.start) for w, size in zip(where, shape[-dims:], strict=True))
        chances = found[(slice(None), *inside)].flatten(1)
        if card.overlapping:  # each structure against there being none of it
            chances = torch.stack((1 - chances, chances)).flatten(1)
        here = torch.log(chances.clamp_min(1e-30))
        own = true[(slice(None), *index, *where)].ravel().astype(np.int64)
        drawn = rng.permutation(own.size)[: max(1, SAMPLES // len(jobs))]
        logs.append(here[:, torch.from_numpy(drawn).to(here.device)].cpu().numpy())
        labels.append(own[drawn])
    return np.concatenate(logs, axis=1), np.concatenate(labels)
