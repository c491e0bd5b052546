"""Where the cells of the tissue field lie: glands with a lumen, stroma between them, and every nucleus with its kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_medt.sample_data.shapes import Array, Outline, random_waves, smooth_noise

_MARGIN = 120


@dataclass(frozen=True, eq=False)
class Gland:
    """One gland: star-shaped about its centre, lined by columnar cells.

    Attributes
    ----------
    y, x
        Centre, px.
    height
        Of the lining cells, px.
    sides
        `(n,)` angles about the centre, sorted, one per lining cell.
    mucin
        `(n,)` whether that cell is a goblet cell.
    """

    y: float
    x: float
    height: float
    sides: Array
    mucin: Array


@dataclass(frozen=True)
class Nucleus:
    """One nucleus with what decides its look.

    Attributes
    ----------
    outline
        Its shape and place.
    kind
        `"lining"`, `"lymphocyte"`, `"plasma"`, `"fibroblast"`, `"endothelium"` or `"mitosis"`.
    stain
        Haematoxylin taken up, relative.
    blur
        Of its own, px, added to that of the lens: how far from the focus it lies.
    """

    outline: Outline
    kind: str
    stain: float
    blur: float


@dataclass(frozen=True, eq=False)
class Plan:
    """The layout of a field, all arrays `(y, x)`.

    Attributes
    ----------
    glands
        The glands.
    owner
        Index of the gland nearest to the pixel.
    inward
        Distance into that gland, px, negative in the stroma.
    turn
        Angle of the pixel about that gland's centre, radians.
    fibres
        Direction of the collagen, radians.
    vessels
        Centre `(y, x)`, semi-axes, and angle of each capillary.
    nuclei
        All nuclei, the deepest first.
    drops
        The mucin of the goblet cells.
    """

    glands: tuple[Gland, ...]
    owner: Array
    inward: Array
    turn: Array
    fibres: Array
    vessels: tuple[tuple[float, float, float, float, float], ...]
    nuclei: tuple[Nucleus, ...]
    drops: tuple[Outline, ...]


def plan_tissue(rng: np.random.Generator, shape: tuple[int, int]) -> Plan:
    """Lay out glands, stroma, vessels and nuclei in a field of `shape` px."""
    glands, owner, inward, turn = _glands(rng, shape)
    fibres = _fibres(rng, inward)
    vessels = _vessels(rng, inward, fibres)
    nuclei, drops = _lining(rng, glands, owner, inward, turn)
    nuclei = _stroma(rng, nuclei, inward, fibres, vessels)
    return Plan(glands, owner, inward, turn, fibres, vessels, tuple(nuclei), tuple(drops))


def _glands(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[tuple[Gland, ...], Array, Array, Array]:
    """Return the glands, and for each pixel the nearest one, the distance into it and the angle about its centre."""
    wide = (shape[0] + 2 * _MARGIN, shape[1] + 2 * _MARGIN)
    y, x = np.mgrid[: wide[0], : wide[1]].astype(np.float64) - _MARGIN
    warp = [8.0 * smooth_noise(rng, wide, 20), 8.0 * smooth_noise(rng, wide, 20)]
    inward = np.full(wide, -np.inf)
    owner, turn = np.zeros(wide, dtype=np.int64), np.zeros(wide)
    glands = []
    for index, (cy, cx, radius) in enumerate(_gland_places(rng, shape)):
        waves, tilt, stretch = random_waves(rng, 0.07), rng.uniform(0, np.pi), rng.uniform(1.0, 1.16)
        dy, dx = y + warp[0] - cy, x + warp[1] - cx
        along, across = dx * np.cos(tilt) + dy * np.sin(tilt), dy * np.cos(tilt) - dx * np.sin(tilt)
        angle = np.arctan2(across * stretch, along / stretch)
        edge = radius * (1.0 + sum(a * np.cos(k * angle + p) for k, a, p in waves))
        body = np.hypot(along / stretch, across * stretch) < edge
        distance = ndimage.distance_transform_edt(body) - ndimage.distance_transform_edt(~body)
        distance = ndimage.gaussian_filter(distance, 1.2)
        wins = distance > inward
        owner[wins], turn[wins], inward[wins] = index, angle[wins], distance[wins]
        cells = max(12, round(2 * np.pi * radius / rng.uniform(12.3, 14.0)))
        sides = np.sort((np.arange(cells) + rng.uniform(-0.32, 0.32, cells)) * 2 * np.pi / cells - np.pi)
        height = float(np.clip(0.58 * radius, 26, rng.uniform(40, 50)))
        glands.append(Gland(cy, cx, height, sides, rng.random(cells) < rng.uniform(0.08, 0.24)))
    crop = (slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN))
    return tuple(glands), owner[crop], inward[crop], turn[crop]


def _gland_places(rng: np.random.Generator, shape: tuple[int, int]) -> list[tuple[float, float, float]]:
    """Centres and radii that leave bands of stroma; glands may be cut by the border."""
    places: list[tuple[float, float, float]] = []
    for _ in range(4000):
        cy, cx = rng.uniform(-60, shape[0] + 60), rng.uniform(-60, shape[1] + 60)
        radius = rng.uniform(70, 102)
        if all(np.hypot(cy - y, cx - x) > 1.13 * (radius + r) + 10 for y, x, r in places):
            places.append((cy, cx, radius))
    return places


def _fibres(rng: np.random.Generator, inward: Array) -> Array:
    """Collagen runs around the glands and, far from them, where it likes."""
    smooth = ndimage.gaussian_filter(np.clip(inward, -80, 10), 9, mode="nearest")
    gy, gx = np.gradient(smooth)
    around = np.arctan2(gx, -gy)
    own = smooth_noise(rng, inward.shape, 70) * 0.6 + rng.uniform(0, np.pi)
    weight = np.clip(np.hypot(gy, gx) / 0.5, 0, 1) * np.exp(np.clip(smooth, None, 0) / 22)
    c = weight * np.cos(2 * around) + 0.45 * np.cos(2 * own)
    s = weight * np.sin(2 * around) + 0.45 * np.sin(2 * own)
    wavy = 0.16 * smooth_noise(rng, inward.shape, 7)
    return np.asarray(0.5 * np.arctan2(s, c) + wavy)


def _vessels(
    rng: np.random.Generator, inward: Array, fibres: Array
) -> tuple[tuple[float, float, float, float, float], ...]:
    """A few capillaries and venules in the widest stroma, along the fibres."""
    found: list[tuple[float, float, float, float, float]] = []
    depth = -inward
    ys, xs = np.nonzero(depth > 17)
    for _ in range(200):
        if len(found) == 4 or ys.size == 0:
            break
        pick = int(rng.integers(ys.size))
        y, x = float(ys[pick]), float(xs[pick])
        room = float(depth[ys[pick], xs[pick]])
        if all(np.hypot(y - v[0], x - v[1]) > 95 for v in found):
            short = min(room * 0.62, rng.uniform(9, 19))
            found.append((y, x, short * rng.uniform(1.3, 2.3), short, float(fibres[ys[pick], xs[pick]])))
    return tuple(found)


def _lining(
    rng: np.random.Generator, glands: tuple[Gland, ...], owner: Array, inward: Array, turn: Array
) -> tuple[list[Nucleus], list[Outline]]:
    """Nuclei of the lining cells, oval, upright, near the base, here and there in a second row; and drops of mucin."""
    nuclei, drops = [], []
    gy, gx = np.gradient(ndimage.gaussian_filter(inward, 3, mode="nearest"))
    for index, gland in enumerate(glands):
        mine_y, mine_x = np.nonzero((owner == index) & (inward > -6) & (inward < gland.height))
        if mine_y.size == 0:
            continue
        own_turn, own_depth = turn[mine_y, mine_x], inward[mine_y, mine_x]
        crowded = rng.uniform(0.25, 0.55)
        for side, mucin in zip(gland.sides, gland.mucin, strict=True):
            rows = 2 if rng.random() < crowded and not mucin else 1
            for row in range(rows):
                at = 0.20 if mucin else (0.31, 0.62)[row]
                depth = gland.height * (at + rng.normal(0, 0.06))
                wanted = side + rng.normal(0, 0.015) + row * 0.06
                long, short = rng.normal(11.4, 1.3), rng.normal(6.2, 0.6)
                tilt, stain, chance = rng.normal(0, 0.17), rng.normal(1.0, 0.13), rng.random()
                waves = random_waves(rng, 0.045)
                away = np.abs(np.angle(np.exp(1j * (own_turn - wanted)))) * 80 + np.abs(own_depth - depth)
                near = int(np.argmin(away))
                if away[near] > 4:
                    continue
                y, x = float(mine_y[near]), float(mine_x[near])
                upright = float(np.arctan2(gy[mine_y[near], mine_x[near]], gx[mine_y[near], mine_x[near]]))
                if mucin:
                    outline = Outline(y, x, short * 1.15, long * 0.46, upright + np.pi / 2 + tilt, waves, bend=0.15)
                    away = np.abs(np.angle(np.exp(1j * (own_turn - side)))) * 80 + np.abs(
                        own_depth - 0.64 * gland.height
                    )
                    near = int(np.argmin(away))
                    size = gland.height * 0.3
                    drops.append(
                        Outline(float(mine_y[near]), float(mine_x[near]), size, 0.62 * size, upright + tilt, waves, 2.2)
                    )
                    nuclei.append(Nucleus(outline, "lining", stain * 1.25, 0.2))
                elif chance < 0.018 and row:
                    nuclei.append(
                        Nucleus(Outline(y, x, 8.5, 4.0, upright, random_waves(rng, 0.14)), "mitosis", 1.9, 0.0)
                    )
                else:
                    blur = 0.0 if chance < 0.72 else float(rng.uniform(0.6, 2.0))
                    outline = Outline(y, x, long, short, upright + tilt, waves)
                    nuclei.append(Nucleus(outline, "lining", stain * (1.0 if blur < 1 else 0.8), blur))
    order = rng.permutation(len(nuclei))
    return sorted((nuclei[i] for i in order), key=lambda nucleus: -nucleus.blur), drops


def _stroma(
    rng: np.random.Generator,
    lining: list[Nucleus],
    inward: Array,
    fibres: Array,
    vessels: tuple[tuple[float, float, float, float, float], ...],
) -> list[Nucleus]:
    """Add fibroblasts along the fibres, lymphocytes and plasma cells in crowds, endothelium around the vessels."""
    nuclei = list(lining)
    shape = inward.shape
    for y, x, long, short, angle in vessels:
        for way in np.arange(0, 2 * np.pi, rng.uniform(1.1, 1.6)) + rng.uniform(0, 2):
            u, v = (long + 3) * np.cos(way), (short + 3) * np.sin(way)
            py, px = y + u * np.sin(angle) + v * np.cos(angle), x + u * np.cos(angle) - v * np.sin(angle)
            along = angle + np.arctan2(short * np.cos(way), -long * np.sin(way))
            shape_of = Outline(
                py, px, rng.uniform(8, 12), rng.uniform(2.2, 3.1), along, random_waves(rng, 0.05), 1.8, 0.2
            )
            nuclei.append(
                Nucleus(shape_of, "endothelium", float(rng.normal(1.15, 0.15)), float(rng.choice([0.0, 0.5])))
            )
    crowd = smooth_noise(rng, shape, 34)
    kept: list[Nucleus] = []
    for _ in range(round(np.prod(shape) / 55)):
        y, x = rng.uniform(-4, shape[0] + 4), rng.uniform(-4, shape[1] + 4)
        at = (int(np.clip(y, 0, shape[0] - 1)), int(np.clip(x, 0, shape[1] - 1)))
        nucleus = _stroma_cell(rng, y, x, float(fibres[at]), float(crowd[at]), rng.random())
        depth = -float(inward[at])
        if nucleus is None or depth < (6 if nucleus.kind == "fibroblast" else 9):
            continue
        if any(_inside(vessel, y, x) for vessel in vessels):
            continue
        own = nucleus.outline
        room = 0.95 * own.short + 1.5
        if all(_clear(own, other.outline, room) for other in (*kept, *nuclei)):
            kept.append(nucleus)
    return kept + nuclei


def _stroma_cell(
    rng: np.random.Generator, y: float, x: float, fibre: float, crowd: float, chance: float
) -> Nucleus | None:
    """Return one cell of the stroma, or None where this place stays empty."""
    stain, blur, which = float(rng.normal(1.0, 0.12)), float(np.clip(rng.gamma(1.2, 0.45) - 0.3, 0, 1.8)), rng.random()
    size, tilt, waves = float(np.exp(rng.normal(0, 0.12))), rng.normal(0, 0.16), random_waves(rng, 0.05)
    bend = float(rng.normal(0, 0.13))
    lymphoid = float(np.clip(0.45 * crowd, 0.02, 0.85))
    if chance > 0.12 + 0.75 * lymphoid**1.5:
        return None
    if which < lymphoid:
        outline = Outline(y, x, 6.6 * size, 5.9 * size, fibre + 5 * tilt, random_waves(rng, 0.06))
        return Nucleus(outline, "lymphocyte", 1.5 * stain, 0.4 * blur)
    if which < lymphoid + 0.10:
        outline = Outline(y, x, 7.4 * size, 6.1 * size, fibre + 3 * tilt, waves)
        return Nucleus(outline, "plasma", 1.3 * stain, 0.4 * blur)
    plump = rng.random() < 0.3
    outline = Outline(
        y, x, (11.5 if plump else 14.0) * size, (4.6 if plump else 2.9) * size, fibre + tilt, waves, 1.75, bend
    )
    return Nucleus(outline, "fibroblast", (0.85 if plump else 1.15) * stain, blur)


def _inside(vessel: tuple[float, float, float, float, float], y: float, x: float) -> bool:
    dy, dx = y - vessel[0], x - vessel[1]
    u, v = dx * np.cos(vessel[4]) + dy * np.sin(vessel[4]), dy * np.cos(vessel[4]) - dx * np.sin(vessel[4])
    return bool((u / (vessel[2] + 7)) ** 2 + (v / (vessel[3] + 7)) ** 2 < 1)


def _clear(one: Outline, other: Outline, room: float) -> bool:
    """Whether the long axes of two outlines keep apart: distance of points along one to the other's axis."""
    if abs(one.y - other.y) + abs(one.x - other.x) > 44:
        return True
    spots = np.linspace(-0.8, 0.8, 5)
    ay, ax = one.y + spots * one.long * np.sin(one.angle), one.x + spots * one.long * np.cos(one.angle)
    by, bx = other.y + spots * other.long * np.sin(other.angle), other.x + spots * other.long * np.cos(other.angle)
    gap = np.hypot(ay[:, None] - by, ax[:, None] - bx).min()
    return bool(gap > room + 0.95 * other.short)
