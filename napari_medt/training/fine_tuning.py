"""Teaching a model from corrected masks, a few steps at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from napari_medt.core import BadTrainingData, Cancel, Progress, Volume, silent
from napari_medt.engine.prepare import Scale, fit
from napari_medt.engine.windows import pad_to_window
from napari_medt.training.optimise import (
    dice_and_cross_entropy,
    frozen_norms,
    learning_rate_at,
    net_loss,
    parameter_groups,
)
from napari_medt.zoo.store import save_version

if TYPE_CHECKING:
    from napari_medt.zoo.card import ModelCard
    from napari_medt.zoo.model import Model

Case = tuple[Volume | npt.ArrayLike, npt.ArrayLike]
OnStep = Callable[[dict[str, Any]], None]
WARMUP = 5
CLIP = 2.0


def fine_tune(
    model: Model,
    cases: Sequence[Case],
    *,
    steps: int = 100,
    learning_rate: float = 1e-3,
    batch: int = 2,
    seed: int = 0,
    scale: Scale | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    on_step: OnStep | None = None,
) -> Model:
    """Go on training a copy of a model on corrected masks and keep it as a new version.

    Batch norms stay on their running statistics, since those of one image would be noise. Half of the windows are centred on
    the foreground, half lie anywhere; all are turned and mirrored.

    Parameters
    ----------
    model
        The model that made the masks; it is not changed.
    cases
        Pairs of image and corrected mask, `(y, x)` with the model's label values; where structures overlap, `(k, y, x)`, a
        mask for each.
    steps
        Gradient steps, each on `batch` windows.
    learning_rate
        At its peak, after 5 steps; it then falls as a cosine.
    seed
        The same seed gives the same model on the same computer.
    scale
        Of the intensities of the scan, if the images are slices of one; fitted to each image by default.
    progress, cancel
        Told about, and looked at before, every step.
    on_step
        Called after every step with `step`, `steps` and `loss`.

    Returns
    -------
    Model
        The new version, stored beside the old ones.

    Raises
    ------
    BadTrainingData
        If there is nothing to learn from, or a mask does not fit its image or the model.
    Cancelled
        If `cancel` was set; nothing is stored.
    """
    if steps < 1 or batch < 1 or not learning_rate > 0:
        raise BadTrainingData(
            f"{steps} steps on {batch} windows at a learning rate of {learning_rate:g} teach nothing",
            remedy="choose at least one step, one window, and a learning rate above 0",
        )
    images, masks, notes = _check(model, cases, scale)
    report, tell = progress or silent, on_step or (lambda event: None)
    report(0, steps, "Loading the training tools")
    net = copy.deepcopy(model.net)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _learn(net, model, images, masks, steps, learning_rate, batch, seed, report, cancel, tell)
    if cancel is not None:
        cancel.check()
    learnt = f"Learnt from {len(images)} corrected image{'s' if len(images) > 1 else ''} in {steps} steps."
    version = save_version(model, net, notes=(learnt, *notes))
    report(steps, steps, f"Stored as {version.card.key}")
    return version


def _learn(
    net: nn.Module,
    model: Model,
    images: list[npt.NDArray[np.float32]],
    masks: list[npt.NDArray[np.int64]],
    steps: int,
    learning_rate: float,
    batch: int,
    seed: int,
    report: Progress,
    cancel: Cancel | None,
    tell: OnStep,
) -> None:
    rng = np.random.default_rng(seed)
    overlapping = model.card.overlapping
    criterion = dice_and_cross_entropy(overlapping=overlapping)
    optimiser = torch.optim.AdamW(parameter_groups(net, 1e-3), lr=learning_rate)
    with frozen_norms(net):
        for step in range(steps):
            if cancel is not None:
                cancel.check()
            for group in optimiser.param_groups:
                group["lr"] = learning_rate_at(step, steps=steps, peak=learning_rate, warmup=WARMUP)
            drawn = [_draw(rng, images, masks, model.card.window, index % 2 == 0) for index in range(batch)]
            inputs = torch.stack([image for image, _ in drawn]).to(model.device)
            labels = torch.stack([mask for _, mask in drawn]).to(model.device)
            loss = net_loss(net, inputs, labels if overlapping else labels[:, 0], criterion)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), CLIP)
            optimiser.step()
            value = float(loss.detach())
            if not np.isfinite(value):
                raise BadTrainingData(
                    "The training lost its way: the loss is not a number any more",
                    remedy="choose a smaller learning rate",
                )
            report(step + 1, steps, f"Learning, loss {value:.3f}")
            tell({"step": step + 1, "steps": steps, "loss": value})


def _draw(
    rng: np.random.Generator,
    images: list[npt.NDArray[np.float32]],
    masks: list[npt.NDArray[np.int64]],
    window: tuple[int, ...],
    on_foreground: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One window `(c, y, x)` of one image and of its masks `(k, y, x)`, turned and mirrored."""
    index = rng.integers(len(images))
    image, mask = images[index], masks[index]
    free = [size - edge for size, edge in zip(mask.shape[1:], window, strict=True)]
    start = [int(rng.integers(f + 1)) for f in free]
    if on_foreground and mask.any():
        inside = np.argwhere(mask.any(0))
        centre = inside[rng.integers(len(inside))]
        start = [int(np.clip(c - edge // 2, 0, f)) for c, edge, f in zip(centre, window, free, strict=True)]
    where = tuple(slice(s, s + edge) for s, edge in zip(start, window, strict=True))
    x, y = torch.from_numpy(image[(slice(None), *where)]), torch.from_numpy(mask[(slice(None), *where)])
    quarter = int(rng.integers(4)) if window[0] == window[1] else 2 * int(rng.integers(2))
    x, y = torch.rot90(x, quarter, (1, 2)), torch.rot90(y, quarter, (1, 2))
    return (x.flip(2), y.flip(2)) if rng.random() < 0.5 else (x, y)


def _check(
    model: Model, cases: Sequence[Case], scale: Scale | None
) -> tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.int64]], tuple[str, ...]]:
    """Images and masks as the network wants them, at least as large as a window, and notes."""
    if not cases:
        raise BadTrainingData("There is no corrected mask to learn from", remedy="correct a mask first")
    card = model.card
    images: list[npt.NDArray[np.float32]] = []
    masks: list[npt.NDArray[np.int64]] = []
    for image, labels in cases:
        volume = image if isinstance(image, Volume) else Volume.from_array(image)
        mask = np.asarray(labels)
        if volume.geometry.ndim != 2:
            raise BadTrainingData("This model learns from 2D images", remedy="give single slices")
        wanted = (card.chances, *volume.spatial_shape) if card.overlapping else volume.spatial_shape
        if mask.shape != wanted:
            raise BadTrainingData(
                f"The mask has {mask.shape} pixels but the image has {wanted}",
                remedy="give the mask that belongs to this image"
                + (", of each structure its own, since they overlap" if card.overlapping else ""),
            )
        _check_labels(mask, card)
        prepared = fit(volume, card, scale=scale)
        images.append(pad_to_window(prepared.whole(), card.window))
        parts = np.stack([prepared.grid.labels(part) for part in (mask if card.overlapping else mask[None])])
        masks.append(pad_to_window(parts.astype(np.float32), card.window).astype(np.int64))
    empty = not any(mask.any() for mask in masks)
    return (
        images,
        masks,
        (("The masks were empty, so the model was taught that there is nothing to find.",) if empty else ()),
    )


def _check_labels(mask: npt.NDArray[Any], card: ModelCard) -> None:
    known = ("not there", "there") if card.overlapping else card.classes
    names = ", ".join(f"{value} {name}" for value, name in enumerate(known))
    if mask.dtype.kind not in "buif" or (mask.dtype.kind == "f" and not np.array_equal(mask, np.round(mask))):
        raise BadTrainingData(
            f"The mask holds fractions or no numbers, but {card.title} knows only the labels {names}",
            remedy="give a mask of whole numbers",
        )
    wrong = mask[(mask < 0) | (mask >= len(known))]
    if wrong.size:
        raise BadTrainingData(
            f"The mask holds the value {int(wrong.flat[0])}, but {card.title} knows only {names}",
            remedy="paint with the labels of the model",
        )
