"""How the intensities of windows are varied, by kind of image: another microscope, lamp and stain, another scanner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Vary = Callable[[Floats, np.random.Generator], Floats]


def variation(preset: str) -> Vary:
    """The function that varies a window `(c, *spatial)` with a generator of random numbers.

    Raises
    ------
    ValueError
        If there is no preset of that name.
    """
    if preset in ("ct", "mr"):
        return _scanner(preset)
    try:
        return {"none": lambda image, _: image, "microscopy": microscopy, "fundus": fundus}[preset]
    except KeyError:
        raise ValueError(f"there is no preset {preset!r}; there are none, microscopy, fundus, ct and mr") from None


def microscopy(image: Floats, rng: np.random.Generator) -> Floats:
    """Another microscope, lamp and stain: colour, light, contrast, focus and noise, for values in [0, 1]."""
    channels = (len(image), 1, 1)
    if rng.random() < 0.1:  # a colour image taken in grey
        image = np.repeat(image.mean(0, keepdims=True), len(image), axis=0)
    if np.ptp(image, axis=0).max() > 0 and rng.random() < 0.5:  # another stain
        image = image * _uniform(rng, 0.8, 1.2, channels)
        mixing = np.eye(len(image), dtype=np.float32) + _uniform(rng, -0.1, 0.1, (len(image), len(image)))
        image = np.einsum("dc,cyx->dyx", mixing, image)
    if rng.random() < 0.03:
        image = 1 - image
    if rng.random() < 0.15:  # paler, over a background of any tone
        share = _uniform(rng, 0.4, 1.0)
        image = share * image + (1 - share) * _uniform(rng, 0.0, 1.0, channels)
    if rng.random() < 0.15:  # light that falls off to one side
        image = image * _slope(image.shape[1:], rng, 0.3)
    return _light(image, rng)


def fundus(image: Floats, rng: np.random.Generator) -> Floats:
    """Another camera and another eye: colour, light that falls off, contrast, focus and noise, for values in [0, 1]."""
    if rng.random() < 0.5:
        image = image * _uniform(rng, 0.8, 1.2, (len(image), 1, 1))
    if rng.random() < 0.3:
        image = image * _slope(image.shape[1:], rng, 0.3)
    return _light(image, rng)


def _light(image: Floats, rng: np.random.Generator) -> Floats:
    """Brightness, contrast, focus and noise."""
    if rng.random() < 0.5:
        image = np.clip(image * _uniform(rng, 0.7, 1.25) + _uniform(rng, -0.08, 0.08), 0, 1)
    if rng.random() < 0.5:
        image = np.clip(image, 0, 1) ** np.float32(2 ** rng.uniform(-0.8, 0.8))
    if rng.random() < 0.15:
        sigma = rng.uniform(0.3, 1.2)
        image = ndimage.gaussian_filter(image, (0, sigma, sigma))
    if rng.random() < 0.2:
        image = image + rng.standard_normal(image.shape, dtype=np.float32) * _uniform(rng, 0.0, 0.05)
    return np.clip(image, 0, 1).astype(np.float32)


def _slope(shape: tuple[int, ...], rng: np.random.Generator, most: float) -> Floats:
    y, x = np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1])
    return (1 + y[:, None] * rng.uniform(-most, most) + x * rng.uniform(-most, most)).astype(np.float32)


def _uniform(rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...] = ()) -> Floats:
    return np.asarray(rng.uniform(low, high, shape), dtype=np.float32)


def _scanner(kind: str) -> Vary:
    """Another scanner and protocol, by MONAI's transforms: noise, sharpness, contrast, and for MR the coil's uneven field."""
    from monai.transforms.compose import Compose
    from monai.transforms.intensity.array import (
        RandAdjustContrast,
        RandBiasField,
        RandGaussianNoise,
        RandGaussianSmooth,
        RandScaleIntensity,
        RandShiftIntensity,
    )

    blur: dict[str, Any] = {f"sigma_{axis}": (0.25, 1.0) for axis in "xyz"}
    parts: list[Any] = [
        RandGaussianNoise(prob=0.2, std=0.05 if kind == "ct" else 0.1),
        RandGaussianSmooth(prob=0.1, **blur),
    ]
    if kind == "mr":
        parts.append(RandBiasField(degree=2, coeff_range=(0.0, 0.2), prob=0.2))
    parts += [
        RandScaleIntensity(factors=0.15, prob=0.3),
        RandShiftIntensity(offsets=0.05, prob=0.3),
        RandAdjustContrast(prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
    ]
    compose = Compose(parts)

    def vary(image: Floats, rng: np.random.Generator) -> Floats:
        compose.set_random_state(seed=int(rng.integers(2**31)))
        return np.asarray(compose(image), dtype=np.float32)

    return vary
