"""From an image as it was read to what a network wants: channels in its order, intensities on its scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadImage, Volume

if TYPE_CHECKING:
    from napari_medt.zoo.card import Intensity, ModelCard

Floats = npt.NDArray[np.float32]
SAMPLES = 4_000_000  # percentiles of larger images are taken from every n-th row and column


@dataclass(frozen=True)
class Scale:
    """An affine map of intensities, clipped to [0, 1] where `clip`: `(x - low) / (high - low)`."""

    low: float
    high: float
    clip: bool

    def apply(self, array: npt.NDArray[Any]) -> Floats:
        """Map an array of any numeric type; what is not finite becomes 0."""
        scaled = array.astype(np.float32)
        np.nan_to_num(scaled, copy=False, nan=self.low, posinf=self.low, neginf=self.low)
        scaled -= np.float32(self.low)
        if self.high > self.low:
            scaled *= np.float32(1 / (self.high - self.low))
        elif self.clip:
            scaled[...] = 0
        return np.clip(scaled, 0, 1, out=scaled) if self.clip else scaled


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image ready to be cut into windows, converted only window by window.

    Attributes
    ----------
    array
        `(c, *spatial)` in the network's channel order, values as read.
    scale
        Of its intensities.
    notes
        Sentences for the user about what was done to the image.
    """

    array: npt.NDArray[Any]
    scale: Scale
    notes: tuple[str, ...] = ()

    def window(self, where: tuple[slice, ...]) -> Floats:
        """`(c, *window)` float32, on the network's scale."""
        return self.scale.apply(self.array[(slice(None), *where)])

    def whole(self) -> Floats:
        """The whole image on the network's scale."""
        return self.scale.apply(self.array)


def fit(volume: Volume, card: ModelCard) -> Prepared:
    """Fit an image to a model without converting it yet.

    Raises
    ------
    BadImage
        If the channels cannot be fitted or no value is finite.
    """
    array, notes = fit_channels(volume, card)
    scale, more = find_scale(array, card.intensity)
    return Prepared(array, scale, (*notes, *more))


def prepare(volume: Volume, card: ModelCard) -> tuple[Floats, tuple[str, ...]]:
    """The whole image as a network wants it, `(c, *spatial)` float32, and notes for the user."""
    prepared = fit(volume, card)
    return prepared.whole(), prepared.notes


def normalise(array: npt.NDArray[Any], intensity: Intensity) -> Floats:
    """Intensity treatment of `(c, *spatial)` alone."""
    return find_scale(array, intensity)[0].apply(array)


def fit_channels(volume: Volume, card: ModelCard) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Bring channels into the number and order of the card: grey repeated for colour, colour averaged for grey."""
    array, have = volume.array, volume.array.shape[0]
    if card.channels in ("rgb", "bgr"):
        if have == 1:
            return np.broadcast_to(array, (3, *array.shape[1:])), ()
        if have in (3, 4):
            if have == 4:
                array = array[:3]
            return (array[::-1] if card.channels == "bgr" else array), ()
    elif card.channels == "grey":
        if have == 1:
            return array, ()
        if have in (3, 4):
            return array[:3].mean(0, keepdims=True, dtype=np.float32), ("The colours were averaged to grey.",)
    elif have == len(card.channels):
        return array, ()
    wants = {"rgb": "a grey or colour image", "bgr": "a grey or colour image", "grey": "a grey or colour image"}
    wanted = wants.get(card.channels) if isinstance(card.channels, str) else ", ".join(card.channels)
    raise BadImage(
        f"{card.title} takes {wanted}, but this image has {have} channel{'s' if have > 1 else ''}",
        remedy="choose the channels the model was trained on, or another model",
    )


def find_scale(array: npt.NDArray[Any], intensity: Intensity) -> tuple[Scale, tuple[str, ...]]:
    """The intensity scale of an image and notes about it; percentiles are over all channels together."""
    if array.dtype.kind not in "buif":
        raise BadImage(f"The image holds values of type {array.dtype}, which are not grey or colour values")
    stride = max(1, int(np.ceil((array.size / SAMPLES) ** 0.5)))
    sample = array[..., ::stride, ::stride]
    notes: tuple[str, ...] = ()
    if array.dtype.kind == "f":
        finite = sample[np.isfinite(sample)]
        if finite.size == 0:
            raise BadImage("The image holds no number, only NaN or infinity", remedy="check how the image was made")
        if finite.size < sample.size or not np.isfinite(array).all():
            notes = ("Some pixels hold NaN or infinity; they were treated as background.",)
        sample = finite
    if intensity.kind == "none":
        return Scale(0.0, 1.0, clip=False), notes
    if intensity.kind == "unit":
        high = {"b": 1.0, "f": 1.0}.get(array.dtype.kind) or float(np.iinfo(array.dtype).max)
        return Scale(0.0, high, clip=False), notes
    low, high = (float(v) for v in np.percentile(sample.astype(np.float32), (intensity.low, intensity.high)))
    if not high > low:
        low, high = float(sample.min()), float(sample.max())
    if not high > low:
        notes = (*notes, "All pixels have the same value, so there is nothing to find.")
    return Scale(low, high, clip=True), notes
