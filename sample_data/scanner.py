"""The errors of a CT scanner: photon noise, beam hardening, and the streaks both make."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse

from napari_medt.sample_data.shapes import Array, band_noise

_WATER_PER_MM = 0.0192
_PHOTONS = 2.4e5
_ANGLES = 160


def scan_error(rng: np.random.Generator, hu: Array, spacing_mm: tuple[float, ...]) -> Array:
    """Return what a scan would add to the true values, in HU, of the shape of `hu`.

    Each slice is projected to rays, the photons of each ray are counted with chance and the spectrum hardens along
    it; the difference from the true rays is reconstructed by filtered back projection. So the noise is strongest
    along the widest way through the body, and streaks lie between bones, as in a real scan.

    Parameters
    ----------
    rng
        The only source of chance.
    hu
        `(z, y, x)`, Hounsfield units.
    spacing_mm
        Distance of the samples along y and x.
    """
    step = float(np.mean(spacing_mm))
    project = _projector(hu.shape[1:], spacing_mm, step)
    slices = hu.reshape(hu.shape[0], -1)
    density = np.clip(1.0 + slices / 1000.0, 0.0, None) * _WATER_PER_MM
    area = float(np.prod(spacing_mm)) / step
    rays = (project @ density.T).T * area
    bone = (project @ np.clip(density - 1.25 * _WATER_PER_MM, 0.0, None).T).T * area
    photons = _PHOTONS * np.exp(-rays)
    noise = rng.standard_normal(rays.shape) * np.sqrt(photons + 40.0) / np.maximum(photons, 10.0)
    wrong = noise - 0.005 * bone * rays - 0.010 * bone**2
    filtered = _ramp(wrong.reshape(hu.shape[0], _ANGLES, -1), step)
    back = (project.T @ filtered.reshape(hu.shape[0], -1).T).T * (np.pi / _ANGLES)
    error = back.reshape(hu.shape) * (1000.0 / _WATER_PER_MM)
    smooth = ndimage.gaussian_filter1d(error, 0.45, axis=0, mode="nearest")
    return np.asarray(smooth + 1.5 * band_noise(rng, hu.shape, 0.5, 2.0))


def _projector(shape: tuple[int, ...], spacing_mm: tuple[float, ...], step: float) -> sparse.csr_array:
    """Matrix from the pixels of a slice to parallel rays `step` mm apart, `(angles * rays, pixels)`."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
    y, x = (part.ravel() for part in np.meshgrid(*axes, indexing="ij"))
    reach = int(np.ceil(np.hypot(y.max(), x.max()) / step)) + 2
    rays = 2 * reach + 1
    pixel = np.arange(y.size)
    rows, columns, weights = [], [], []
    for number, angle in enumerate(np.linspace(0, np.pi, _ANGLES, endpoint=False)):
        place = (x * np.cos(angle) + y * np.sin(angle)) / step + reach
        low = np.floor(place).astype(np.int64)
        share = place - low
        for ray, weight in ((low, 1.0 - share), (low + 1, share)):
            rows.append(number * rays + ray)
            columns.append(pixel)
            weights.append(weight)
    entries = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(sparse.coo_array(entries, shape=(_ANGLES * rays, y.size)))


def _ramp(rays: Array, step: float) -> Array:
    """Ramp filter with a Hann window along the last axis."""
    size = int(2 ** np.ceil(np.log2(2 * rays.shape[-1])))
    frequency = np.fft.rfftfreq(size, d=step)
    window = 0.5 * (1.0 + np.cos(np.pi * frequency / frequency.max()))
    spectrum = np.fft.rfft(rays, n=size, axis=-1) * frequency * window
    return np.asarray(np.fft.irfft(spectrum, n=size, axis=-1)[..., : rays.shape[-1]])
