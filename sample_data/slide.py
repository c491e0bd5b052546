"""A field of stained tissue: dyes in optical density, light through them by the law of Beer and Lambert, a scanner."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from napari_medt.sample_data.architecture import Nucleus, Plan, plan_tissue
from napari_medt.sample_data.shapes import (
    Array,
    Footprint,
    band_noise,
    draw,
    follow,
    random_waves,
    renumber,
    smooth_noise,
)

PIXEL_UM = 0.4
"""Edge of a pixel, micrometres."""

HAEMATOXYLIN = (0.62, 1.05, 0.30)
"""Optical density of one unit of haematoxylin in red, green and blue."""
EOSIN = (0.15, 0.80, 0.30)
"""Optical density of one unit of eosin."""
BLOOD = (0.07, 0.85, 0.55)
"""Optical density of one unit of eosin bound to haemoglobin: more orange."""
_GLASS = (240.0, 238.0, 243.0)


def tissue_field(rng: np.random.Generator, shape: tuple[int, int] = (512, 512)) -> tuple[Array, Array]:
    """Make the stained-tissue field.

    Parameters
    ----------
    rng
        The only source of chance.
    shape
        `(y, x)` of the field, at least 64 px each way.

    Returns
    -------
    image
        `(y, x, 3)` uint8 colours.
    nuclei
        `(y, x)` uint16, 0 for background and one number for each nucleus.
    """
    plan = plan_tissue(rng, shape)
    haem, eosin, blood = _ground(rng, plan)
    labels = np.zeros(shape, dtype=np.uint16)
    for nucleus in plan.nuclei:
        footprint = draw(nucleus.outline, shape, margin=7)
        if footprint is None:
            continue
        _stain_nucleus(rng, nucleus, footprint, haem, eosin)
        drawn = footprint.cover() > 0.5
        labels[footprint.box][drawn] = labels.max() + 1
    thickness = 1.0 + 0.06 * smooth_noise(rng, shape, 80)
    haem = haem * thickness * (1.0 + 0.05 * smooth_noise(rng, shape, 60))
    eosin = eosin * thickness * (1.0 + 0.08 * smooth_noise(rng, shape, 70))
    density = sum(
        amount[..., None] * np.array(dye) for amount, dye in ((haem, HAEMATOXYLIN), (eosin, EOSIN), (blood, BLOOD))
    )
    return _scan(rng, np.asarray(density)), renumber(labels)


def _ground(rng: np.random.Generator, plan: Plan) -> tuple[Array, Array, Array]:
    """Haematoxylin, eosin and blood of everything but the nuclei."""
    shape = plan.inward.shape
    haem, eosin = _collagen(rng, plan)
    blood = np.zeros(shape)
    _line_glands(rng, plan, haem, eosin)
    _fill_vessels(rng, plan, haem, eosin, blood)
    return haem, eosin, blood


def _collagen(rng: np.random.Generator, plan: Plan) -> tuple[Array, Array]:
    """Stroma: strands of collagen of two widths with clear clefts between them."""
    shape = plan.inward.shape
    thin = follow(rng.standard_normal(shape), plan.fibres, steps=8)
    wide = follow(smooth_noise(rng, shape, 2.2), plan.fibres, steps=9, stride=1.6)
    loose = smooth_noise(rng, shape, 38)
    strands = 0.55 * thin / thin.std() + 0.75 * wide / wide.std()
    eosin = 0.36 + 0.070 * strands + 0.050 * band_noise(rng, shape, 0.8, 2.5) - 0.03 * loose
    cleft = 1.0 / (1.0 + np.exp((wide / wide.std() + 1.65 - 0.75 * loose) * 4.5))
    eosin = np.clip(eosin, 0.05, None) * (1.0 - 0.85 * cleft)
    haem = np.clip(0.055 + 0.020 * band_noise(rng, shape, 3, 9), 0.0, None) * (1.0 - 0.8 * cleft)
    return haem, eosin


def _line_glands(rng: np.random.Generator, plan: Plan, haem: Array, eosin: Array) -> None:
    """Cytoplasm, cell borders, mucin, basement membrane and the open lumen, written over the stroma."""
    shape = plan.inward.shape
    grain, lumps = band_noise(rng, shape, 0.7, 2.0), band_noise(rng, shape, 2.0, 6.0)
    ragged = plan.inward + 1.6 * smooth_noise(rng, shape, 4)
    drop = _mucin(plan)
    wisps = np.clip(band_noise(rng, shape, 3.0, 14.0) - 0.4, 0, None)
    for index, gland in enumerate(plan.glands):
        own = (plan.owner == index) & (plan.inward > -9)
        inside = np.where(own, np.clip(plan.inward + 0.5, 0, 1), 0.0)
        if not own.any():
            continue
        share = np.clip(plan.inward / gland.height, 0, 2)
        gap = _to_border(gland.sides, plan.turn)
        cyto_e = 0.27 + 0.06 * share + 0.035 * grain + 0.025 * lumps
        cyto_h = 0.085 - 0.03 * share + 0.015 * lumps
        width = np.maximum(gland.height * 1.6 - plan.inward, 8) * np.pi * 2 / gland.sides.size
        border = np.exp(-((gap * width / 0.9) ** 2)) * (share < 1)
        cyto_e = cyto_e + 0.07 * border
        cyto_e, cyto_h = cyto_e * (1 - 0.82 * drop), cyto_h * (1 - 0.45 * drop) + 0.02 * drop * lumps
        edge = ndimage.gaussian_filter(ragged, 2.5, mode="nearest") - gland.height
        lumen = np.clip(0.5 + edge / 2.5, 0, 1)
        brush = np.exp(-((edge / 1.8) ** 2))
        fluff = 0.10 * wisps * np.exp(-np.clip(edge, 0, None) / 25)
        cyto_e = (cyto_e + 0.10 * brush * (1 - drop)) * (1 - lumen) + lumen * fluff
        cyto_h = cyto_h * (1 - lumen) + lumen * 0.5 * fluff
        eosin[...] = eosin * (1 - inside) + np.clip(cyto_e, 0, None) * inside
        haem[...] = haem * (1 - inside) + np.clip(cyto_h, 0, None) * inside
        membrane = np.where(own, np.exp(-(((plan.inward + 0.8) / 1.4) ** 2)), 0.0)
        eosin += 0.13 * membrane
        # Shrinkage in the wax tears the gland off its stroma here and there.
        torn = np.where(own, np.exp(-(((plan.inward + 4.5) / 2.4) ** 2)), 0.0)
        torn = torn * np.clip(2.2 * np.sin(plan.turn * 2 + index * 1.7) - 1.2, 0, 1)
        eosin *= 1 - 0.9 * torn
        haem *= 1 - 0.9 * torn


def _to_border(sides: Array, turn: Array) -> Array:
    """For each pixel: how far the border to the next lining cell is, 0 at it and 0.5 amid the cell."""
    ring = np.concatenate([sides[-1:] - 2 * np.pi, sides, sides[:1] + 2 * np.pi])
    middles = 0.5 * (ring[1:] + ring[:-1])
    turn = np.where(turn < middles[0], turn + 2 * np.pi, turn)
    turn = np.where(turn >= middles[-1], turn - 2 * np.pi, turn)
    cell = np.clip(np.searchsorted(middles, turn, side="right") - 1, 0, sides.size - 1)
    low, high = middles[cell], middles[cell + 1]
    return np.clip(np.minimum(turn - low, high - turn) / (high - low), 0.0, 0.5)


def _mucin(plan: Plan) -> Array:
    """Share of each pixel in a drop of mucin."""
    drop = np.zeros(plan.inward.shape)
    for outline in plan.drops:
        footprint = draw(outline, drop.shape)
        if footprint is not None:
            np.maximum(drop[footprint.box], footprint.cover(2.5), out=drop[footprint.box])
    return drop


def _fill_vessels(rng: np.random.Generator, plan: Plan, haem: Array, eosin: Array, blood: Array) -> None:
    """Open the capillaries and put red cells into them."""
    shape = plan.inward.shape
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    for cy, cx, long, short, angle in plan.vessels:
        waves = random_waves(rng, 0.10)
        dy, dx = y - cy, x - cx
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        way = np.arctan2(v / short, u / long)
        radius = np.hypot(u / long, v / short) / (1 + sum(a * np.cos(k * way + p) for k, a, p in waves))
        open_ = np.clip(0.5 + (1 - radius) * short / 1.5, 0, 1)
        eosin *= 1 - 0.85 * open_
        haem *= 1 - 0.95 * open_
        plasma = np.clip(0.12 + 0.03 * smooth_noise(rng, shape, 3), 0, None)
        eosin += plasma * open_ + 0.16 * np.exp(-(((radius - 1.12) * short / 1.6) ** 2))
        cells: list[tuple[float, float]] = []
        for _ in range(400):
            far, at = np.sqrt(rng.random()) * 0.93, rng.uniform(0, 2 * np.pi)
            u0, v0 = far * (long - 3) * np.cos(at), far * (short - 3) * np.sin(at)
            if all(np.hypot(u0 - a, v0 - b) > 10.5 for a, b in cells):
                cells.append((u0, v0))
        for u0, v0 in cells:
            size, squeeze, tilt = rng.uniform(6.4, 8.0), rng.uniform(0.68, 1.0), rng.uniform(0, np.pi)
            a = (u - u0) * np.cos(tilt) + (v - v0) * np.sin(tilt)
            b = ((v - v0) * np.cos(tilt) - (u - u0) * np.sin(tilt)) / squeeze
            r = np.hypot(a, b) / size
            disc = np.clip(0.5 + (1 - r) * size / 1.6, 0, 1) * (0.82 + 0.18 * np.clip(r / 0.7, 0, 1) ** 2)
            np.maximum(blood, rng.uniform(0.60, 1.00) * disc * np.clip(open_ * 1.5, 0, 1), out=blood)


def _stain_nucleus(rng: np.random.Generator, nucleus: Nucleus, footprint: Footprint, haem: Array, eosin: Array) -> None:
    """Lay one nucleus over what is there."""
    shape = footprint.depth.shape
    cover = (
        ndimage.gaussian_filter(footprint.cover(1.6), nucleus.blur, mode="nearest")
        if nucleus.blur
        else footprint.cover(1.6)
    )
    fine, clumps = band_noise(rng, shape, 0.6, 1.6), band_noise(rng, shape, 1.1, 3.2)
    rim = np.exp(-(((footprint.depth - 1.1) / 1.0) ** 2))
    if nucleus.kind == "mitosis":
        body = 1.0 + 0.12 * clumps
    elif nucleus.kind in ("lymphocyte", "plasma"):
        body = 0.80 + 0.14 * clumps + 0.06 * fine + 0.14 * rim
    elif nucleus.kind == "lining":
        body = 0.66 + 0.15 * clumps + 0.10 * fine + 0.28 * rim + _nucleoli(rng, footprint)
    else:
        body = 0.82 + 0.11 * clumps + 0.07 * fine + 0.16 * rim
    body = np.clip(body, 0.25, None)
    if nucleus.blur:
        body = ndimage.gaussian_filter(body, nucleus.blur, mode="nearest")
    dye = 1.10 * nucleus.stain * body
    box = footprint.box
    below = haem[box]
    # Nuclei that overlap in the thickness of the section darken each other, less than their sum.
    haem[box] = np.maximum(below, 0.0) * (1 - 0.72 * cover) + dye * cover
    eosin[box] = eosin[box] * (1 - 0.62 * cover)
    if nucleus.kind == "plasma":
        halo = np.exp(-((np.clip(-footprint.depth, 0, None) / 3.5) ** 2)) * (1 - cover)
        haem[box] += 0.13 * halo
        eosin[box] += 0.12 * halo


def _nucleoli(rng: np.random.Generator, footprint: Footprint) -> Array:
    """One or two dark round spots within the nucleus."""
    y, x = np.nonzero(footprint.radius < 0.6)
    spots = np.zeros_like(footprint.depth)
    if y.size == 0:
        return spots
    gy, gx = np.mgrid[: spots.shape[0], : spots.shape[1]]
    for _ in range(int(rng.integers(0, 3))):
        pick = int(rng.integers(y.size))
        size = rng.uniform(0.9, 1.5)
        spots += rng.uniform(0.25, 0.5) * np.exp(-((gy - y[pick]) ** 2 + (gx - x[pick]) ** 2) / (2 * size**2))
    return spots


def _scan(rng: np.random.Generator, density: Array) -> Array:
    """Light through the slide, lens, sensor and the scanner's compression, as `(y, x, 3)` uint8."""
    light = np.array(_GLASS) * np.exp(-density)
    seen = np.stack(
        [
            ndimage.shift(ndimage.gaussian_filter(light[..., i], 0.72, mode="nearest"), move, order=1, mode="nearest")
            for i, move in enumerate([(0.20, -0.15), (0.0, 0.0), (-0.20, 0.20)])
        ],
        axis=-1,
    )
    # A scanner sharpens a little; this also gives the thin bright edge that real slides show around dark nuclei.
    seen = seen + 0.45 * (seen - ndimage.gaussian_filter(seen, (1.3, 1.3, 0), mode="nearest"))
    seen = seen + np.sqrt(np.clip(seen, 1, None)) * 0.10 * rng.standard_normal(seen.shape)
    seen = seen + 0.6 * ndimage.gaussian_filter(rng.standard_normal(seen.shape), (0.8, 0.8, 0)) * 3
    return np.clip(np.rint(_compress(seen)), 0, 255).astype(np.uint8)


def _compress(image: Array) -> Array:
    """What a block transform coder of good quality leaves of `(y, x, 3)`: brightness finely, colour coarsely kept."""
    to_luma = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
    planes = image @ to_luma.T
    height, width = image.shape[:2]
    padded = np.pad(planes, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // 8, 8, padded.shape[1] // 8, 8, 3)
    waves = fft.dctn(blocks, axes=(1, 3), norm="ortho")
    u, v = np.mgrid[:8, :8]
    for channel, (base, slope) in enumerate([(2.0, 0.7), (2.6, 1.9), (2.6, 1.9)]):
        step = (base + slope * (u + v))[None, :, None, :]
        waves[..., channel] = np.rint(waves[..., channel] / step) * step
    back = fft.idctn(waves, axes=(1, 3), norm="ortho").reshape(padded.shape)[:height, :width]
    return np.asarray(back @ np.linalg.inv(to_luma).T)
