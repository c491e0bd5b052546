"""A field of cultured cells with stained nuclei, as a wide-field fluorescence microscope shows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_medt.sample_data.shapes import (
    Array,
    Footprint,
    Outline,
    band_noise,
    draw,
    poisson,
    random_waves,
    renumber,
    smooth_noise,
)

PIXEL_UM = 0.65
"""Edge of a pixel, micrometres."""

_OFFSET = 100.0
_READ_NOISE = 2.2
_FULL_WELL = 4095


@dataclass(frozen=True)
class _Cell:
    outline: Outline
    light: float
    blur: float
    kind: str


def fluorescence_field(rng: np.random.Generator, shape: tuple[int, int] = (512, 512)) -> tuple[Array, Array]:
    """Make the fluorescence field.

    Parameters
    ----------
    rng
        The only source of chance.
    shape
        `(y, x)` of the field; the number of nuclei follows the area.

    Returns
    -------
    image
        `(y, x)` uint16, camera counts of 12 bits with an offset of 100.
    nuclei
        `(y, x)` uint16, 0 for background and one number for each nucleus.
    """
    cells = _place(rng, shape)
    light = np.zeros(shape)
    labels = np.zeros(shape, dtype=np.uint16)
    best = np.full(shape, 0.0)
    for cell in cells:
        footprint = draw(cell.outline, shape, margin=14)
        if footprint is None:
            continue
        glow, cover = _glow(rng, cell, footprint)
        light[footprint.box] += glow
        # Where two nuclei overlap the one nearer the focus, then the brighter, owns the pixel: as a reader would draw it.
        claim = np.where(cover > 0.5, cell.light / cell.blur, 0.0)
        wins = claim > best[footprint.box]
        best[footprint.box][wins] = claim[wins]
        labels[footprint.box][wins] = labels.max() + 1
    light = light + _dirt(rng, shape) + _haze(rng, light)
    return _camera(rng, light * _lamp(rng, shape)), renumber(labels)


def _place(rng: np.random.Generator, shape: tuple[int, int]) -> list[_Cell]:
    """Nuclei scattered as in a culture: crowded here, sparse there, a preferred direction, some touching."""
    crowd = smooth_noise(rng, shape, 70)
    grain = smooth_noise(rng, shape, 90) * 0.7 + rng.uniform(0, np.pi)
    wanted = round(np.prod(shape) / 2150)
    cells: list[_Cell] = []
    for _ in range(wanted * 40):
        if len(cells) >= wanted:
            break
        y, x = rng.uniform(-8, shape[0] + 8), rng.uniform(-8, shape[1] + 8)
        chance, slack, turn = rng.random(), rng.random(), rng.normal(0, 0.55)
        cell = _cell(rng, y, x, turn)
        at = (int(np.clip(y, 0, shape[0] - 1)), int(np.clip(x, 0, shape[1] - 1)))
        cell = _turned(cell, float(grain[at]))
        room = 0.78 if slack < 0.40 else 1.10
        if chance > np.clip(0.45 + 0.35 * crowd[at], 0.05, 1.0):
            continue
        family = [cell, _sister(cell)] if cell.kind == "anaphase" else [cell]
        room = room if cell.kind == "rest" else 1.15
        if any(_too_near(one.outline, other.outline, room) for one in family for other in cells):
            continue
        cells += family
    return cells


def _cell(rng: np.random.Generator, y: float, x: float, angle: float) -> _Cell:
    draw_kind = rng.random()
    size = float(np.exp(rng.normal(0, 0.16)))
    ratio = float(np.clip(rng.normal(0.70, 0.10), 0.45, 0.96))
    light = float(np.exp(rng.normal(0, 0.28)))
    blur = float(np.clip(rng.gamma(3.0, 0.28) + 0.55, 0.6, 2.6))
    waves = random_waves(rng, 0.035)
    bend = float(rng.normal(0, 0.10))
    if draw_kind < 0.02:
        plate = Outline(y, x, 11.0 * size, 3.4, angle, random_waves(rng, 0.15), bend=0.5 * bend)
        return _Cell(plate, 2.2 * light, 1.0, "metaphase")
    if draw_kind < 0.03:
        plate = Outline(y, x, 9.0 * size, 3.6, angle, random_waves(rng, 0.12), bend=0.22)
        return _Cell(plate, 2.0 * light, 1.1, "anaphase")
    if draw_kind < 0.05:
        return _Cell(
            Outline(y, x, 10.5 * size, 9.5 * size, angle, random_waves(rng, 0.11)), 1.7 * light, 0.9, "prophase"
        )
    if draw_kind < 0.07:
        return _Cell(Outline(y, x, 6.2 * size, 5.4 * size, angle, random_waves(rng, 0.09)), 2.1 * light, 1.1, "dying")
    if draw_kind < 0.16:
        waves = random_waves(rng, 0.10)
    radius = 14.2 * size * (1.18 if rng.random() < 0.25 else 1.0)
    return _Cell(
        Outline(y, x, radius / np.sqrt(ratio), radius * np.sqrt(ratio), angle, waves, bend=bend), light, blur, "rest"
    )


def _turned(cell: _Cell, by: float) -> _Cell:
    o = cell.outline
    turned = Outline(o.y, o.x, o.long, o.short, o.angle + by, o.waves, o.pointed, o.bend)
    return _Cell(turned, cell.light, cell.blur, cell.kind)


def _sister(cell: _Cell) -> _Cell:
    """Return the other half of a dividing nucleus: parallel, bent the other way."""
    o = cell.outline
    y, x = o.y + 15 * np.cos(o.angle), o.x - 15 * np.sin(o.angle)
    return _Cell(
        Outline(y, x, o.long * 0.95, o.short, o.angle, o.waves, o.pointed, -o.bend), cell.light, cell.blur, "sister"
    )


def _too_near(one: Outline, other: Outline, room: float) -> bool:
    away_y, away_x = other.y - one.y, other.x - one.x
    distance = float(np.hypot(away_y, away_x))
    if distance > one.reach + other.reach + 6:
        return False
    way = np.arctan2(away_y, away_x)
    return distance < room * (_extent(one, way) + _extent(other, way)) + (2 if room > 1 else 0)


def _extent(outline: Outline, way: float) -> float:
    """Half the extent of the ellipse along a direction."""
    return float(np.hypot(outline.long * np.cos(way - outline.angle), outline.short * np.sin(way - outline.angle)))


def _glow(rng: np.random.Generator, cell: _Cell, footprint: Footprint) -> tuple[Array, Array]:
    """Light of one nucleus after its own blur, and its sharp cover."""
    shape = footprint.depth.shape
    cover = footprint.cover()
    if cell.kind in ("metaphase", "anaphase", "sister"):
        body = 1.0 + 0.18 * band_noise(rng, shape, 1.0, 3.0)
    elif cell.kind == "prophase":
        body = np.clip(0.85 + 0.42 * band_noise(rng, shape, 1.0, 2.4), 0.2, 2.2)
    elif cell.kind == "dying":
        body = np.clip(1.0 + 0.30 * band_noise(rng, shape, 1.6, 3.2), 0.3, 2.2)
    else:
        chromatin = 0.55 * band_noise(rng, shape, 0.9, 2.6) + 0.45 * band_noise(rng, shape, 2.0, 5.5)
        # A flattened body: thick in the middle, thin at the edge, with heterochromatin along the envelope.
        thickness = np.sqrt(np.clip(1.0 - 0.75 * footprint.radius**3, 0.1, 1.0))
        rim = 0.10 * np.exp(-(((footprint.depth - 1.6) / 1.1) ** 2))
        body = thickness * np.clip(1.0 + 0.20 * chromatin, 0.3, 1.8) + rim
        body *= _nucleoli(rng, cell.outline, footprint)
    sharp = cell.light * np.clip(body, 0.0, None) * cover
    return ndimage.gaussian_filter(sharp, cell.blur, mode="constant"), cover


def _nucleoli(rng: np.random.Generator, outline: Outline, footprint: Footprint) -> Array:
    """Factor that darkens one to four round spots, where there is ribosomal RNA and little DNA."""
    factor = np.ones_like(footprint.depth)
    y, x = np.mgrid[footprint.box]
    for _ in range(int(rng.integers(1, 5))):
        way, far = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random()) * 0.6
        u, v = far * outline.long * np.cos(way), far * outline.short * np.sin(way)
        cos, sin = np.cos(outline.angle), np.sin(outline.angle)
        cy, cx = outline.y + u * sin + v * cos, outline.x + u * cos - v * sin
        radius, deep = rng.uniform(1.3, 2.8), rng.uniform(0.18, 0.45)
        factor *= 1.0 - deep * np.exp(-((((y - cy) ** 2 + (x - cx) ** 2) / (2 * radius**2)) ** 2))
    return factor


def _haze(rng: np.random.Generator, light: Array) -> Array:
    """Dim cytoplasm around the nuclei, light from out of focus, and the medium's own glow."""
    near = ndimage.gaussian_filter(light, 9, mode="reflect")
    far = ndimage.gaussian_filter(light, 38, mode="reflect")
    patchy = np.clip(1.0 + 0.35 * band_noise(rng, light.shape, 2.5, 9), 0.2, 2.0)
    return 0.07 * near * patchy + 0.12 * far + 0.03 * np.clip(1.0 + 0.25 * smooth_noise(rng, light.shape, 60), 0.3, 2)


def _dirt(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Specks of stain and a few fragments of dead cells, too small to be nuclei."""
    dirt = np.zeros(shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for _ in range(round(np.prod(shape) / 17000)):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        size, bright = rng.uniform(0.6, 1.25), float(np.exp(rng.normal(-0.9, 0.5)))
        dirt += bright * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2))
    return dirt


def _lamp(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Uneven illumination: brightest off the centre, falling by about a third towards a corner."""
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    cy, cx = 0.5 + rng.uniform(-0.12, 0.12), 0.5 + rng.uniform(-0.12, 0.12)
    return np.asarray(1.0 / (1.0 + 0.75 * ((y - cy) ** 2 + (x - cx) ** 2)) ** 1.2)


def _camera(rng: np.random.Generator, light: Array) -> Array:
    """Counts of a 12-bit camera: shot noise, read noise, offset, saturation."""
    optics = ndimage.gaussian_filter(light, 0.6, mode="reflect")
    electrons = poisson(rng, 430.0 * optics) + _READ_NOISE * rng.standard_normal(light.shape)
    return np.clip(np.rint(_OFFSET + 1.35 * electrons), 0, _FULL_WELL).astype(np.uint16)
