"""Outlines, textures and noise that the fluorescence field and the tissue field share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Outline:
    """A smooth irregular ellipse: the outline of one nucleus.

    Attributes
    ----------
    y, x
        Centre, px.
    long, short
        Semi-axes, px.
    angle
        Of the long axis, radians from the x axis towards the y axis.
    waves
        `(k, 3)` rows of order, amplitude (share of the radius) and phase: the irregularity.
    pointed
        2 is an ellipse; smaller has pointed ends like a spindle.
    bend
        Sag of the long axis over half its length, as a share of it: a banana's curvature.
    """

    y: float
    x: float
    long: float
    short: float
    angle: float
    waves: Array
    pointed: float = 2.0
    bend: float = 0.0

    @property
    def reach(self) -> float:
        """Radius, px, of a circle that holds the outline."""
        return float(max(self.long, self.short) * (1.05 + np.abs(self.waves[:, 1]).sum() + abs(self.bend)))


@dataclass(frozen=True, eq=False)
class Footprint:
    """One outline drawn on the part of an image it reaches.

    Attributes
    ----------
    box
        Where in the image.
    depth
        `(h, w)` distance from the outline in px, positive inside; exact along the axes, near enough elsewhere.
    radius
        `(h, w)` 0 at the centre, 1 on the outline.
    """

    box: tuple[slice, slice]
    depth: Array
    radius: Array

    def cover(self, softness: float = 1.0) -> Array:
        """Share of each pixel inside the outline, `(h, w)`, over an edge of `softness` px."""
        return np.clip(0.5 + self.depth / softness, 0.0, 1.0)


def random_waves(rng: np.random.Generator, amplitude: float) -> Array:
    """Irregularity of the given amplitude, orders 2 to 6, falling with the order."""
    orders = np.arange(2, 7)
    amplitudes = amplitude * rng.normal(size=orders.size) / (orders - 1.0) ** 0.9
    return np.column_stack([orders, amplitudes, rng.uniform(0, 2 * np.pi, orders.size)])


def draw(outline: Outline, shape: tuple[int, int], margin: float = 6.0) -> Footprint | None:
    """Footprint of an outline in an image of the given shape; None where it lies outside."""
    reach = outline.reach + margin
    top, left = int(np.floor(outline.y - reach)), int(np.floor(outline.x - reach))
    bottom, right = int(np.ceil(outline.y + reach)) + 1, int(np.ceil(outline.x + reach)) + 1
    box = (slice(max(top, 0), min(bottom, shape[0])), slice(max(left, 0), min(right, shape[1])))
    if box[0].start >= box[0].stop or box[1].start >= box[1].stop:
        return None
    y, x = np.mgrid[box].astype(np.float64)
    y, x = y - outline.y, x - outline.x
    cos, sin = np.cos(outline.angle), np.sin(outline.angle)
    u, v = x * cos + y * sin, y * cos - x * sin
    v = v - outline.bend * outline.long * ((u / outline.long) ** 2 - 0.3)
    theta = np.arctan2(v / outline.short, u / outline.long)
    wave = 1.0 + sum(a * np.cos(k * theta + p) for k, a, p in outline.waves)
    power = outline.pointed
    norm = ((np.abs(u) / outline.long) ** power + (np.abs(v) / outline.short) ** power + 1e-9) ** (1 / power)
    radius = norm / np.maximum(wave, 0.2)
    distance = np.hypot(u, v)
    depth = np.where(radius > 1e-3, distance * (1.0 / np.maximum(radius, 1e-3) - 1.0), outline.short)
    # Along the long side of a thin outline the radial distance overstates; the normal one is what an edge shows.
    slope = np.hypot(*np.gradient(radius))
    depth = np.clip((1.0 - radius) / np.maximum(slope, 1e-3), -outline.reach - margin, np.maximum(depth, 0.0))
    return Footprint(box, depth, radius)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float | tuple[float, ...]) -> Array:
    """Gaussian noise of correlation length `sigma` px, mean 0 and standard deviation 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="reflect")
    centred = noise - noise.mean()
    return np.asarray(centred / max(float(centred.std()), 1e-12))


def band_noise(rng: np.random.Generator, shape: tuple[int, ...], fine: float, coarse: float) -> Array:
    """Noise with structure between the scales `fine` and `coarse` px, standard deviation 1."""
    white = rng.standard_normal(shape)
    noise = ndimage.gaussian_filter(white, fine, mode="reflect") - ndimage.gaussian_filter(
        white, coarse, mode="reflect"
    )
    return np.asarray(noise / max(float(noise.std()), 1e-12))


def poisson(rng: np.random.Generator, expected: Array) -> Array:
    """Poisson counts by inversion: one uniform number a pixel, so that a last-bit difference elsewhere stays local."""
    chance = rng.uniform(1e-9, 1.0 - 1e-9, expected.shape)
    return np.asarray(np.ceil(np.maximum(special.pdtrik(chance, np.maximum(expected, 1e-6)), 0.0)))


def follow(field: Array, angle: Array, *, steps: int, stride: float = 1.0) -> Array:
    """Average of a field along the streamlines of a direction field: strands out of noise.

    Parameters
    ----------
    field
        `(y, x)`.
    angle
        `(y, x)` direction in radians from the x axis towards the y axis; `angle` and `angle + pi` mean the same.
    steps
        Number of steps each way.
    stride
        Length of a step, px.
    """
    total = field.astype(np.float64).copy()
    double = np.stack([np.cos(2 * angle), np.sin(2 * angle)])
    for way in (1.0, -1.0):
        y, x = np.mgrid[: field.shape[0], : field.shape[1]].astype(np.float64)
        heading = np.stack([np.sin(angle), np.cos(angle)]) * way
        for _ in range(steps):
            y, x = y + stride * heading[0], x + stride * heading[1]
            c, s = (ndimage.map_coordinates(part, [y, x], order=1, mode="nearest") for part in double)
            local = 0.5 * np.arctan2(s, c)
            turned = np.stack([np.sin(local), np.cos(local)])
            heading = turned * np.where((turned * heading).sum(0) < 0, -1.0, 1.0)
            total += ndimage.map_coordinates(field, [y, x], order=1, mode="reflect")
    return np.asarray(total / (2 * steps + 1))


def renumber(labels: Array) -> Array:
    """Labels 1, 2, 3 ... without gaps; a nucleus that is all but covered by others is dropped."""
    size = np.bincount(labels.ravel())
    keep = np.flatnonzero(size >= 12)
    keep = keep[keep > 0]
    table = np.zeros(size.size, dtype=np.uint16)
    table[keep] = np.arange(1, keep.size + 1)
    return table[labels]
