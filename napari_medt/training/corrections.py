"""Corrected images: what of a mask is vouched for, what a person changed, which patients are never learnt from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_medt.core import BadTrainingData, Volume
from napari_medt.engine.prepare import Scale, fit
from napari_medt.nets.layers import with_background
from napari_medt.training.sampling import Sample, some_places
from napari_medt.zoo.card import ModelCard

# A sample's class and how much it counts travel in one byte, so that windows are cut and turned as in any training.
SHIFT = 6
CLASSES = (1 << SHIFT) - 1  # the largest number of classes, and the bits of a sample that hold its class
UNSEEN, SEEN, EDITED = range(3)
WEIGHTS = (0.0, 1.0, 3.0)  # of samples nobody looked at, of reviewed ones, of those a person changed
EDITED_PLACES, GROUND_PLACES = -1, -2  # beside the classes, what windows are drawn around
EPSILON = 1e-5  # as in MONAI's Dice loss


@dataclass(frozen=True, eq=False)
class Correction:
    """One image with its corrected mask.

    Attributes
    ----------
    image
        A `Volume`, or an array as `Volume.from_array` takes it.
    labels
        `(*spatial)` with the model's label values; where structures overlap, `(k, *spatial)`, a mask for each. `None` only for
        rehearsal, where the model that is taught labels it.
    reviewed
        `(*spatial)`, true where a person vouches for the mask; by default everywhere. The rest is not learnt.
    edited
        `(*spatial)`, true where a person changed the mask; it weighs three times as much. Edited samples count as reviewed.
    patient
        What is never both learnt from and held out; an image without one stands for itself.
    held_out
        Only looked at, never learnt from.
    group
        Share of the windows it is drawn with, see `Shares`: `"new"`, `"earlier"` or `"rehearsal"`.
    scale
        Of the intensities of the scan, if the image is a slice of one; fitted to the image by default.
    """

    image: Volume | npt.ArrayLike
    labels: npt.ArrayLike | None
    reviewed: npt.ArrayLike | None = None
    edited: npt.ArrayLike | None = None
    patient: str = ""
    held_out: bool = False
    group: str = "new"
    scale: Scale | None = None


def hold_out(cases: Sequence[Correction], *, share: float = 0.2) -> list[Correction]:
    """Hold out cases by patient: the same patient comes to the same side whenever and with whomever it is asked about.

    So no later round learns from a patient that an earlier one was measured on, nor the other way round. Cases without a
    patient, and those of the base data, are not touched; among few patients it may be that none is held out.
    """

    def drawn(patient: str) -> bool:
        number = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big")
        return number < share * 2**64

    return [
        replace(case, held_out=True) if case.patient and case.group != "rehearsal" and drawn(case.patient) else case
        for case in cases
    ]


def check_patients(cases: Sequence[Correction]) -> None:
    """Refuse cases that would be judged on a patient they learnt from.

    Raises
    ------
    BadTrainingData
        If a patient is on both sides, or everything is held out.
    """
    learnt = {case.patient for case in cases if not case.held_out}
    both = sorted({case.patient for case in cases if case.held_out and case.patient} & learnt)
    if both:
        raise BadTrainingData(
            f"Images of the patient {both[0]} are held out and learnt from at once",
            remedy="hold out all of them or none",
        )
    if not any(not case.held_out and case.group != "rehearsal" for case in cases):
        raise BadTrainingData("There is no corrected mask to learn from", remedy="correct a mask first")


class Corrected(Sample):
    """A sample whose labels hold, above the class, how much each place counts."""

    def __post_init__(self) -> None:
        """Remember the reviewed places of classes, what was edited, and, where not all was reviewed, where there is ground."""
        classes, weights = self.labels & CLASSES, self.labels >> SHIFT
        seen = (weights if weights.ndim == self.image.ndim - 1 else weights[0]) > UNSEEN
        parts = classes if self.overlapping else [classes == v for v in range(1, int(classes.max(initial=0)) + 1)]
        masks = {value: (part > 0) & seen for value, part in enumerate(parts, start=1)}
        masks[EDITED_PLACES] = (weights == EDITED) if weights.ndim == seen.ndim else (weights == EDITED).any(0)
        if not seen.all():
            masks[GROUND_PLACES] = seen
        object.__setattr__(self, "places", some_places(masks))

    @property
    def seen(self) -> bool:
        """Whether anything of it was reviewed."""
        return bool((self.labels >> SHIFT).any())


def to_corrected(case: Correction, card: ModelCard, *, name: str) -> Corrected:
    """A case on the model's grid, as the network wants it.

    Raises
    ------
    BadTrainingData
        If a mask does not fit the image or the model.
    """
    volume = case.image if isinstance(case.image, Volume) else Volume.from_array(case.image)
    if volume.geometry.ndim != card.spatial_dims:
        kind = {2: "2D images; give single slices", 3: "3D scans; give the whole scan"}[card.spatial_dims]
        what, _, remedy = kind.partition("; ")
        raise BadTrainingData(f"This model learns from {what}", remedy=remedy)
    mask, shape = np.asarray(case.labels), volume.spatial_shape
    if mask.shape != (wanted := (card.chances, *shape) if card.overlapping else shape):
        raise BadTrainingData(
            f"The mask has {mask.shape} {'pixels' if len(shape) == 2 else 'voxels'} but the image has {wanted}",
            remedy="give the mask that belongs to this image"
            + (", of each structure its own, since they overlap" if card.overlapping else ""),
        )
    _check_labels(mask, card)
    weight = np.full(shape, SEEN, np.uint8)
    for words, where, value, to in (
        ("reviewed", case.reviewed, False, UNSEEN),
        ("edited", case.edited, True, EDITED),
    ):
        if where is None:
            continue
        given = np.asarray(where, dtype=bool)
        if given.shape != shape:
            raise BadTrainingData(
                f"What was {words} is told for {given.shape} samples but the image has {shape}",
                remedy="give one value a sample",
            )
        weight[given == value] = to
    prepared = fit(volume, card, scale=case.scale)
    packed = [
        prepared.grid.labels(part.astype(np.uint8) | (weight << SHIFT))
        for part in (mask if card.overlapping else mask[None])
    ]
    image, labels = prepared.whole().astype(np.float16), np.stack(packed)
    if prepared.crop is not None:
        where_body = (slice(None), *prepared.grid.model_box(prepared.crop))
        image, labels = image[where_body], labels[where_body]
    labels = np.ascontiguousarray(labels if card.overlapping else labels[0])
    return Corrected(np.ascontiguousarray(image), labels, case.group, case.patient or name, name)


def _check_labels(mask: npt.NDArray[Any], card: ModelCard) -> None:
    known = ("not there", "there") if card.overlapping else card.classes
    names = ", ".join(f"{value} {name}" for value, name in enumerate(known))
    if len(known) > CLASSES:
        raise BadTrainingData(f"{card.title} has more than {CLASSES} classes, too many to learn from corrections")
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


class WeightedLoss:
    """Soft Dice of the foreground classes over the batch plus cross-entropy, every sample with its weight.

    Takes logits `(n, k, *size)` and labels `(n, *size)`, or `(n, k, *size)` where classes overlap, that hold class and
    weight as samples of `Corrected` do. With all weights equal it is `dice_and_cross_entropy`.

    Attributes
    ----------
    dice
        Dice of each class beside the background on the last batch, NaN where neither has it; of a network that asks more
        than once a step, of what it asked first.
    """

    def __init__(self, *, overlapping: bool) -> None:
        self._overlapping = overlapping
        self.dice: list[float] = []

    def begin(self) -> None:
        """Before a step."""
        self.dice = []

    def __call__(self, logits: Tensor, packed: Tensor) -> Tensor:
        """The loss of one prediction."""
        logits, labels = logits.float(), packed & CLASSES
        weight = logits.new_tensor(WEIGHTS)[packed >> SHIFT]
        if self._overlapping:
            wanted = labels.to(logits.dtype)
            entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            chance, hard = logits.sigmoid(), logits > 0
        else:
            classes = logits.shape[1]
            entropy = F.cross_entropy(logits, labels, reduction="none")
            wanted = F.one_hot(labels, classes).movedim(-1, 1)[:, 1:].to(logits.dtype)
            chance = logits.softmax(1)[:, 1:]
            hard = F.one_hot(logits.argmax(1), classes).movedim(-1, 1)[:, 1:].bool()
        mean = (weight * entropy).sum() / weight.sum().clamp_min(EPSILON)
        each = weight if self._overlapping else weight[:, None]
        over = (0, *range(2, logits.ndim))
        both = (each * chance * wanted).sum(over)
        whole = (each * (chance + wanted)).sum(over)
        if not self.dice:
            self.dice = _hard_dice(hard & (each > 0), (wanted > 0) & (each > 0), over)
        return mean + (1 - (2 * both + EPSILON) / (whole + EPSILON)).mean()


def _hard_dice(found: Tensor, wanted: Tensor, over: tuple[int, ...]) -> list[float]:
    both, whole = (found & wanted).sum(over), found.sum(over) + wanted.sum(over)
    return [float(value) for value in 2 * both / whole]


def look(
    forward: Callable[[Tensor, Tensor], Tensor], windows: Sequence[tuple[Tensor, Tensor, Tensor]], *, overlapping: bool
) -> list[float]:
    """Dice of each class beside the background, pooled over the reviewed samples of windows; NaN where there is none.

    Parameters
    ----------
    forward
        From images `(n, c, *window)` and positions to logits.
    windows
        Batches of images, packed labels and positions.
    """
    totals: list[Tensor] = []
    for images, packed, positions in windows:
        with torch.inference_mode():
            logits = forward(images, positions).float().cpu()
        labels, seen = packed & CLASSES, (packed >> SHIFT) > UNSEEN
        if overlapping:
            pairs = [((logits[:, k] > 0), labels[:, k] > 0, seen[:, k]) for k in range(logits.shape[1])]
        else:
            logits = with_background(logits)
            best = logits.argmax(1)
            pairs = [(best == k, labels == k, seen) for k in range(1, logits.shape[1])]
        totals.append(
            torch.tensor([[(a & b & s).sum(), (a & s).sum() + (b & s).sum()] for a, b, s in pairs], dtype=torch.float64)
        )
    both, whole = torch.stack(totals).sum(0).T
    return [float(value) for value in 2 * both / whole]
