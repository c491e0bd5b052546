"""From the values of an image to the scale a network was trained on.

Of images above four million values, percentiles, mean and deviation are taken from every n-th sample along the last two axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadImage
from napari_medt.engine.channels import Channels
from napari_medt.engine.rows import in_rows

if TYPE_CHECKING:
    from napari_medt.zoo.card import Intensity

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
SAMPLES = 4_000_000
BAND = 8_000_000  # values looked at together where a whole image must be looked through


@dataclass(frozen=True)
class Scale:
    """Affine maps of intensities, `(x - low) / (high - low)`.

    Attributes
    ----------
    low, high
        What becomes 0 and 1: one number for all channels, or one for each.
    clip
        Whether the rest is clipped to [0, 1].
    zero_stays
        Whether what is 0 stays 0, as the background of a scan from which all but the organ was taken.
    """

    low: float | tuple[float, ...]
    high: float | tuple[float, ...]
    clip: bool
    zero_stays: bool = False

    def apply(self, array: Array) -> Floats:
        """Map `(c, *spatial)` of any numeric type; what is not finite becomes 0 where that can be."""
        if isinstance(self.low, tuple) and isinstance(self.high, tuple):
            scaled = np.empty(array.shape, dtype=np.float32)
            for values, low, high, into in zip(array, self.low, self.high, scaled, strict=True):
                into[...] = Scale(low, high, self.clip, self.zero_stays).apply(values)
            return scaled
        return self._map(array, float(self.low), float(self.high))  # type: ignore[arg-type]

    def _map(self, array: Array, low: float, high: float) -> Floats:
        span = high - low
        # Large integers and float64 may differ by less than float32 can tell, and hold more than it can hold.
        exact = array.dtype.itemsize > 4 or (array.dtype.kind in "iu" and array.dtype.itemsize > 2) or 0 < span < 1e-30
        scaled: Array = array.astype(np.float64 if exact else np.float32)
        if array.dtype.kind == "f":
            np.nan_to_num(scaled, copy=False, nan=low, posinf=low, neginf=low)
        empty = scaled == 0 if self.zero_stays else None
        scaled -= scaled.dtype.type(low)
        if span > 0:
            scaled /= scaled.dtype.type(span)
        elif self.clip:
            scaled[...] = 0
        if self.clip:
            np.clip(scaled, 0, 1, out=scaled)
        if empty is not None:
            scaled[empty] = 0
        return scaled.astype(np.float32, copy=False)


def find_scale(array: Array, intensity: Intensity, channels: Channels) -> tuple[Scale, tuple[str, ...]]:
    """The intensity scale of an image `(c, *spatial)` and notes about it.

    Raises
    ------
    BadImage
        If no value is finite.
    """
    notes = _not_finite(array, channels)
    if intensity.kind == "none":
        return Scale(0.0, 1.0, clip=False), notes
    if intensity.kind == "unit":
        high = {"b": 1.0, "f": 1.0}.get(array.dtype.kind) or float(np.iinfo(array.dtype).max)
        return Scale(0.0, high, clip=False), notes
    if intensity.kind == "clip":
        return Scale(intensity.low, intensity.high, clip=True), notes
    stride = max(1, int(np.ceil((float(np.prod(array.shape)) / SAMPLES) ** 0.5)))
    sample = np.concatenate(list(_bands(array, channels, stride=stride)), axis=1)
    groups = range(len(sample)) if intensity.per_channel else (slice(None),)
    zscore = intensity.kind == "zscore"
    found = [
        _mean_and_more(sample[group], array, channels, group)
        if zscore
        else _percentiles(sample[group], array, channels, group, intensity)
        for group in groups
    ]
    if any(not high > low for low, high in found):
        whose = " of a channel" if any(high > low for low, high in found) else ""
        which = " that are not 0" if zscore and any(low for low, high in found if not high > low) else ""
        notes = (*notes, f"All pixels{whose}{which} have the same value, so there is nothing to find.")
    if len(found) == 1:
        return Scale(*found[0], not zscore, zscore), notes
    lows, highs = zip(*found, strict=True)
    return Scale(lows, highs, not zscore, zscore), notes


Group = int | slice


def _percentiles(
    sample: Array, array: Array, channels: Channels, group: Group, intensity: Intensity
) -> tuple[float, float]:
    """The low and the high percentile, of a sample, or where it is all alike, the extremes of the image."""
    values = _finite(sample)
    low = high = 0.0
    if values.size:
        low, high = (float(v) for v in np.percentile(values.astype(np.float64), (intensity.low, intensity.high)))
    if not high > low:  # nearly all pixels alike: what little there is must not be lost
        extremes = [_extremes(band[group]) for band in _bands(array, channels)]
        low, high = min(least for least, _ in extremes), max(most for _, most in extremes)
    return low, high


def _mean_and_more(sample: Array, array: Array, channels: Channels, group: Group) -> tuple[float, float]:
    """The mean of what is not 0, and the mean and one standard deviation, of a sample; of the image if that holds only 0."""
    values = _finite(sample)
    values = values[values != 0]
    if not values.size:
        bands = [_finite(band[group]) for band in _bands(array, channels)]
        values = np.concatenate([band[band != 0] for band in bands])
    if not values.size:
        return 0.0, 0.0
    mean = float(values.mean(dtype=np.float64))
    return mean, mean + float(values.std(dtype=np.float64))


def _not_finite(array: Array, channels: Channels) -> tuple[str, ...]:
    """A note where values are not finite."""
    if array.dtype.kind != "f":
        return ()
    counts = [(band.size, int(np.isfinite(band).sum())) for band in _bands(array, channels)]
    finite = sum(good for _, good in counts)
    if finite == 0:
        raise BadImage("The image holds no number, only NaN or infinity", remedy="check how the image was made")
    if finite < sum(size for size, _ in counts):
        return ("Some pixels hold NaN or infinity; they were treated as background.",)
    return ()


def _finite(array: Array) -> Array:
    found: Array = array[np.isfinite(array)] if array.dtype.kind == "f" else array.ravel()
    return found


def _bands(array: Array, channels: Channels, *, stride: int = 1) -> Iterator[Array]:
    """An image's channels in bands along the first spatial axis, so that no copy is large; every n-th of the last two axes."""
    rows, source = array.shape[1], in_rows(array)
    step = max(1, int(BAND * rows // max(1, np.prod(array.shape))))
    rest = [slice(0, size) for size in array.shape[2:]]
    thinned = (..., slice(None, None, stride), slice(None, None, stride))
    first = 0  # of two axes, the first is the one that is cut into bands
    for start in range(0, rows, step):
        band = np.asarray(source[(slice(None), slice(start, min(start + step, rows)), *rest)])
        if array.ndim == 3 and stride > 1:
            band, first = band[:, first:], (first - band.shape[1]) % stride
        yield channels.pick(band[thinned])


def _extremes(band: Array) -> tuple[float, float]:
    """Least and greatest finite value; `(inf, -inf)` where there is none."""
    band = _finite(band)
    return (float(band.min()), float(band.max())) if band.size else (np.inf, -np.inf)
