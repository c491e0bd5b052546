"""From an image as it was read to what a network wants: channels in its order, intensities on its scale.

Nothing of a large image is converted at once: `fit` looks at the image and remembers what is to be done, `Prepared.window`
does it for one window. Percentiles of images above four million values are taken from every n-th row and column.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadImage, Volume
from napari_medt.core.volume import default_channel_names

if TYPE_CHECKING:
    from napari_medt.zoo.card import Intensity, ModelCard

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
SAMPLES = 4_000_000
BAND = 8_000_000  # values looked at together where a whole image must be looked through
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Scale:
    """An affine map of intensities, clipped to [0, 1] where `clip`: `(x - low) / (high - low)`."""

    low: float
    high: float
    clip: bool

    def apply(self, array: Array) -> Floats:
        """Map an array of any numeric type; what is not finite becomes 0."""
        span = self.high - self.low
        # Large integers and float64 may differ by less than float32 can tell, and hold more than it can hold.
        exact = array.dtype.itemsize > 4 or (array.dtype.kind in "iu" and array.dtype.itemsize > 2) or 0 < span < 1e-30
        scaled: Array = array.astype(np.float64 if exact else np.float32)
        if array.dtype.kind == "f":
            np.nan_to_num(scaled, copy=False, nan=self.low, posinf=self.low, neginf=self.low)
        scaled -= scaled.dtype.type(self.low)
        if span > 0:
            scaled /= scaled.dtype.type(span)
        elif self.clip:
            scaled[...] = 0
        if self.clip:
            np.clip(scaled, 0, 1, out=scaled)
        return scaled.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Channels:
    """Which channels of an image go into the network, or that their mean does."""

    order: tuple[int, ...]
    mean: bool = False

    def pick(self, array: Array) -> Array:
        """Channels `(c, *spatial)` that the scale is found from and applied to; each is there once."""
        if self.mean:
            wide = np.float64 if array.dtype.itemsize > 4 else np.float32
            with np.errstate(invalid="ignore", over="ignore"):  # infinity is told of and taken out elsewhere
                found: Array = array[list(self.order)].mean(0, keepdims=True, dtype=wide)
            return found
        return array if self._repeats else array[list(self.order)]

    def spread(self, array: Floats) -> Floats:
        """Repeat a grey channel that the network wants more than once."""
        return np.broadcast_to(array, (len(self.order), *array.shape[1:])) if self._repeats else array

    @property
    def _repeats(self) -> bool:
        return not self.mean and set(self.order) == {0}


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image ready to be cut into windows, converted only window by window.

    Attributes
    ----------
    array
        `(c, *spatial)` as read; anything that can be sliced like an array.
    channels
        Which of its channels are taken.
    scale
        Of their intensities.
    notes
        Sentences for the user about what was done to the image.
    """

    array: Array
    channels: Channels
    scale: Scale
    notes: tuple[str, ...] = ()

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Shape without channels."""
        return tuple(self.array.shape[1:])

    def window(self, where: tuple[slice, ...]) -> Floats:
        """`(c, *window)` float32, on the network's scale; not to be written to."""
        part = np.asarray(self.array[(slice(None), *where)])
        return self.channels.spread(self.scale.apply(self.channels.pick(part)))

    def whole(self) -> Floats:
        """The whole image on the network's scale."""
        return np.ascontiguousarray(self.window(tuple(slice(0, size) for size in self.spatial_shape)))


def fit(volume: Volume, card: ModelCard, *, scale: Scale | None = None) -> Prepared:
    """Fit an image to a model without converting it yet; `scale` is that of the scan a slice belongs to, if it is one.

    Raises
    ------
    BadImage
        If the channels cannot be fitted or no value is finite.
    """
    channels, notes = fit_channels(volume, card)
    if scale is not None:
        return Prepared(volume.array, channels, scale, notes)
    found, more = find_scale(volume.array, card.intensity, channels)
    return Prepared(volume.array, channels, found, (*notes, *more))


def prepare(volume: Volume, card: ModelCard, *, scale: Scale | None = None) -> tuple[Floats, tuple[str, ...]]:
    """The whole image as a network wants it, `(c, *spatial)` float32, and notes for the user; `scale` as in `fit`."""
    prepared = fit(volume, card, scale=scale)
    return prepared.whole(), prepared.notes


def normalise(array: Array, intensity: Intensity) -> Floats:
    """Intensity treatment of `(c, *spatial)` alone, as float32."""
    return find_scale(array, intensity, Channels(tuple(range(array.shape[0]))))[0].apply(array)


def fit_channels(volume: Volume, card: ModelCard) -> tuple[Channels, tuple[str, ...]]:
    """Find the channels a card asks for: grey repeated for colour, colour averaged for grey, named channels by name.

    Raises
    ------
    BadImage
        If the image has other channels than the model takes.
    """
    names, count = volume.channel_names, volume.array.shape[0]
    alpha = count == 4 and names[:3] == COLOURS  # transparency says nothing about what is seen
    if isinstance(card.channels, tuple):
        place = {name.casefold(): index for index, name in enumerate(names)}
        wanted = [name.casefold() for name in card.channels]
        if all(name in place for name in wanted):
            return Channels(tuple(place[name] for name in wanted)), ()
        if count == len(wanted):
            taken = "" if names == default_channel_names(count) else _taken_as(card.channels)
            return Channels(tuple(range(count))), (taken,) if taken else ()
    elif count == 1:
        return Channels((0,) * card.in_channels), ()
    elif count == 3 or alpha:
        notes = () if names[:3] == COLOURS else (_taken_as(COLOURS),)
        if card.channels == "grey":
            return Channels((0, 1, 2), mean=True), (*notes, "The colours were averaged to grey.")
        return Channels((2, 1, 0) if card.channels == "bgr" else (0, 1, 2)), notes
    wants = ", ".join(card.channels) if isinstance(card.channels, tuple) else "a grey or colour image"
    has = f"{count} channel{'s' if count > 1 else ''} ({', '.join(names[:6])}{', ...' if count > 6 else ''})"
    raise BadImage(
        f"{card.title} takes {wants}, but this image has {has}",
        remedy="choose the channels the model was trained on, or another model",
    )


def find_scale(array: Array, intensity: Intensity, channels: Channels) -> tuple[Scale, tuple[str, ...]]:
    """The intensity scale of an image `(c, *spatial)` and notes about it; percentiles are over all channels together.

    Raises
    ------
    BadImage
        If no value is finite.
    """
    stride = max(1, int(np.ceil((float(np.prod(array.shape)) / SAMPLES) ** 0.5)))
    sample = channels.pick(np.asarray(array[..., ::stride, ::stride]))
    notes: tuple[str, ...] = ()
    if array.dtype.kind == "f":
        sample = sample[np.isfinite(sample)]
        finite = sum(int(np.isfinite(band).sum()) for band in _bands(array, channels))
        if finite == 0:
            raise BadImage("The image holds no number, only NaN or infinity", remedy="check how the image was made")
        if finite < _values(array, channels):
            notes = ("Some pixels hold NaN or infinity; they were treated as background.",)
    if intensity.kind == "none":
        return Scale(0.0, 1.0, clip=False), notes
    if intensity.kind == "unit":
        high = {"b": 1.0, "f": 1.0}.get(array.dtype.kind) or float(np.iinfo(array.dtype).max)
        return Scale(0.0, high, clip=False), notes
    low = high = 0.0
    if sample.size:
        low, high = (float(v) for v in np.percentile(sample.astype(np.float64), (intensity.low, intensity.high)))
    if not high > low:  # nearly all pixels alike: what little there is must not be lost
        extremes = [_extremes(band) for band in _bands(array, channels)]
        low, high = min(least for least, _ in extremes), max(most for _, most in extremes)
    if not high > low:
        notes = (*notes, "All pixels have the same value, so there is nothing to find.")
    return Scale(low, high, clip=True), notes


def _taken_as(names: tuple[str, ...]) -> str:
    return f"The channels were taken, in their order, as {', '.join(names[:-1])} and {names[-1]}."


def _bands(array: Array, channels: Channels) -> Iterator[Array]:
    """An image's channels in bands along the first spatial axis, so that no copy is large."""
    rows = array.shape[1]
    step = max(1, int(BAND * rows // max(1, np.prod(array.shape))))
    for start in range(0, rows, step):
        yield channels.pick(np.asarray(array[:, start : start + step]))


def _values(array: Array, channels: Channels) -> int:
    """How many values `_bands` yields together."""
    return int(np.prod(array.shape[1:])) * (1 if channels.mean else len(set(channels.order)))


def _extremes(band: Array) -> tuple[float, float]:
    """Least and greatest finite value; `(inf, -inf)` where there is none."""
    if band.dtype.kind == "f":
        band = band[np.isfinite(band)]
    return (float(band.min()), float(band.max())) if band.size else (np.inf, -np.inf)
