"""What is kept of a segmented image: labels, and beside them only what was asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor

from napari_medt.core import AxisMap, OutOfMemory
from napari_medt.core.memory import allowed
from napari_medt.engine.planes import Store, Turned
from napari_medt.engine.windows import Box

if TYPE_CHECKING:
    from napari_medt.zoo.card import ModelCard

Halves = npt.NDArray[np.float16]
Uncertainty = Literal["entropy", "margin", "flips", "dropout"]
SEVERAL: tuple[Uncertainty, ...] = ("flips", "dropout")  # found from the disagreement of several passes


@dataclass(frozen=True)
class Wanted:
    """Which results are kept beside the labels."""

    probabilities: bool = False
    uncertainty: Uncertainty | None = None


class Results:
    """Arrays that fill up while an image is segmented.

    Parameters
    ----------
    shape
        Of the image.
    card
        Of the model.
    wanted
        Beside the labels.
    axes
        From the axes of the image to those of the parts it is given.
    into
        Takes the labels instead of memory, a few whole rows of windows at a time.

    Attributes
    ----------
    labels
        `(*spatial)` uint8, uint16 above 256 classes; or `into`.
    structures
        `(k, *spatial)` bool: where each class beside the background is, if they overlap and the labels are kept in memory.
    probabilities
        `(k, *spatial)` or None.
    uncertainty
        `(*spatial)` or None, in [0, 1].
    """

    def __init__(
        self, shape: tuple[int, ...], card: ModelCard, wanted: Wanted, *, axes: AxisMap, into: Store | None = None
    ) -> None:
        self._wanted, self._card, self._type = wanted, card, label_type(len(card.classes))
        self.labels: Any = np.zeros(shape, dtype=self._type) if into is None else into
        self.structures = np.zeros((card.chances, *shape), bool) if card.overlapping and into is None else None
        self.probabilities: Halves | None = None
        self.uncertainty: Halves | None = None
        if wanted.probabilities:
            self.probabilities = np.zeros((card.chances, *shape), dtype=np.float16)
        if wanted.uncertainty:
            self.uncertainty = np.zeros(shape, dtype=np.float16)
        self._axes, self._shape = axes, shape
        turned = self._turned(self.labels)
        self._labels = turned if into is None else _Bands(turned, self._type)

    @torch.inference_mode()
    def keep(self, where: Box, values: Tensor) -> None:
        """Reduce a part of the image to what was asked for.

        Parameters
        ----------
        where
            The part, in the axes of the parts.
        values
            `(channels, *part)` class probabilities, and the mean entropy of single passes where they may disagree.
        """
        found, overlapping = values[: self._card.chances], self._card.overlapping
        labels = painted(found > 0.5) if overlapping else labels_of(found)
        self._labels[where] = labels.cpu().numpy().astype(self._type, copy=False)
        if self.structures is not None:
            for kept, chance in zip(self.structures, found, strict=True):
                self._turned(kept)[where] = (chance > 0.5).cpu().numpy()
        if self.probabilities is not None:
            for held, chance in zip(self.probabilities, found, strict=True):
                self._turned(held)[where] = chance.half().cpu().numpy()
        if self.uncertainty is not None and self._wanted.uncertainty is not None:
            doubt = uncertainty_of(values, self._card.chances, self._wanted.uncertainty, overlapping=overlapping)
            self._turned(self.uncertainty)[where] = doubt.half().cpu().numpy()

    def take(self, where: Box, found: Results) -> None:
        """Put in a part that was segmented elsewhere, in axes as of `keep`; parts come in rows along the first axis."""
        self._labels[where] = found.labels
        if self.structures is not None and found.structures is not None:
            for kept, inside in zip(self.structures, found.structures, strict=True):
                self._turned(kept)[where] = inside
        if self.probabilities is not None and found.probabilities is not None:
            for held, chance in zip(self.probabilities, found.probabilities, strict=True):
                self._turned(held)[where] = chance
        if self.uncertainty is not None:
            self._turned(self.uncertainty)[where] = found.uncertainty

    def _turned(self, array: Store) -> Turned:
        return Turned(array, self._axes, self._shape)

    def finish(self) -> None:
        """Hand on what is still held."""
        if isinstance(self._labels, _Bands):
            self._labels.flush()


class _Bands:
    """Collects the parts of a row of windows, since stores on disk want few and large pieces."""

    def __init__(self, store: Turned, dtype: npt.DTypeLike) -> None:
        self._store, self._dtype = store, dtype
        self._parts: list[tuple[Box, npt.NDArray[Any]]] = []

    def __setitem__(self, where: Box, values: npt.NDArray[Any]) -> None:
        if self._parts and where[0] != self._parts[0][0][0]:
            self.flush()
        self._parts.append((where, values))

    def flush(self) -> None:
        """Hand on the parts, which together are a box."""
        if not self._parts:
            return
        low = [min(part.start for part in parts) for parts in zip(*(where for where, _ in self._parts), strict=True)]
        high = [max(part.stop for part in parts) for parts in zip(*(where for where, _ in self._parts), strict=True)]
        rows = np.empty([b - a for a, b in zip(low, high, strict=True)], dtype=self._dtype)
        for where, values in self._parts:
            rows[tuple(slice(part.start - a, part.stop - a) for part, a in zip(where, low, strict=True))] = values
        self._store[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = rows
        self._parts.clear()


def kept_bytes(voxels: int, card: ModelCard, wanted: Wanted, *, labels: bool = True) -> int:
    """What the results of an image of so many voxels take; without its `labels` where these go elsewhere."""
    each = (np.dtype(label_type(len(card.classes))).itemsize + card.chances * card.overlapping) * labels
    each += np.dtype(np.float16).itemsize * (card.chances * wanted.probabilities + (wanted.uncertainty is not None))
    return voxels * each


def check_room(voxels: int, card: ModelCard, wanted: Wanted, *, labels: bool = True) -> None:
    """Refuse what cannot even be kept, since a system may promise memory that it has not and end the process later.

    Raises
    ------
    OutOfMemory
        With what is needed and what is free; parameters as of `kept_bytes`.
    """
    needed, free = kept_bytes(voxels, card, wanted, labels=labels), allowed(psutil.virtual_memory().available)
    if needed > free:
        extra = "probabilities" if wanted.probabilities else "uncertainty" if wanted.uncertainty else ""
        raise OutOfMemory(
            f"The mask{f' and the {extra}' if extra else ''} of this image would take {needed / 1e9:,.1f} GB of memory, "
            f"but only {free / 1e9:,.1f} GB are free",
            remedy=f"do without {extra}" if extra else "write the mask into an .ome.zarr",
        )


def label_type(classes: int) -> npt.DTypeLike:
    """Type that holds the labels of so many classes."""
    return np.uint8 if classes <= 256 else np.uint16


def labels_of(found: Tensor) -> Tensor:
    """The likeliest class, the first of equals: `(k, ...)` to `(...)` uint8, int32 above 256 classes."""
    if len(found) > 256:
        return found.argmax(0).int()
    # Class by class, since torch's own argmax over the first axis takes ten times as long.
    best = found[0].clone()
    labels = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for label in range(1, len(found)):
        torch.maximum(labels, torch.gt(found[label], best).view(torch.uint8).mul_(label), out=labels)
        torch.maximum(best, found[label], out=best)
    return labels


def painted(inside: Tensor) -> Tensor:
    """One label for each place, the later of structures over the earlier: `(k, ...)` bool to `(...)` uint8, int32 above 255."""
    dtype = torch.uint8 if len(inside) < 256 else torch.int32
    labels = torch.zeros(inside.shape[1:], dtype=dtype, device=inside.device)
    for value, here in enumerate(inside, start=1):
        labels.masked_fill_(here, value)
    return labels


def uncertainty_of(values: Tensor, chances: int, kind: Uncertainty, *, overlapping: bool = False) -> Tensor:
    """How little the network is sure, in [0, 1].

    Parameters
    ----------
    values
        `(channels, ...)`: class probabilities, then the mean entropy of single passes.
    chances
        Number of the probabilities.
    kind
        `"entropy"` of the probabilities over its maximum; `"margin"`, one minus the distance between the two likeliest
        classes; `"flips"` and `"dropout"`, the entropy of the mean minus the mean entropy over its maximum, which is the
        mutual information between the answer and the pass (Houlsby et al. 2011, BALD).
    overlapping
        Whether each probability is that of a structure on its own, against there being none of it, with an entropy for each
        in `values`: the largest doubt about any of them then counts.
    """
    found = values[:chances]
    if overlapping:
        if kind == "margin":
            return torch.minimum(found, 1 - found).mul(2).amax(0)  # one minus the distance from p to 1 - p
        doubts: Tensor = torch.special.entr(found) + torch.special.entr(1 - found)
        if kind in SEVERAL:
            doubts -= values[chances:]
        return doubts.amax(0).div(math.log(2)).clamp(0, 1)
    if kind == "margin":
        best, second = found[0].clone(), torch.zeros_like(found[0])
        for chance in found[1:]:
            torch.maximum(second, torch.minimum(best, chance), out=second)
            torch.maximum(best, chance, out=best)
        return (1 - (best - second)).clamp_(0, 1)
    entropy = -(found * found.clamp_min(1e-12).log_()).sum(0)
    if kind in SEVERAL:
        entropy -= values[chances]
    return entropy.div_(math.log(chances)).clamp_(0, 1)
