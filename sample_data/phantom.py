"""A body like that of an abdominal CT scan: organs as smooth solids, partial volume, and a scanner's noise and streaks."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_medt.sample_data.scanner import scan_error
from napari_medt.sample_data.shapes import Array, smooth_noise
from napari_medt.sample_data.solids import Body, tube

SPACING_MM = (4.0, 2.25, 2.25)
"""Distance of the samples along z, y, x."""
SHAPE = (64, 144, 160)
"""Samples along z (upwards), y (to the back), x (to the patient's left)."""

ORGANS = {
    1: "liver",
    2: "spleen",
    3: "right kidney",
    4: "left kidney",
    5: "vertebrae",
    6: "aorta",
    7: "lungs",
    8: "stomach",
    9: "gall bladder",
    10: "liver lesion",
    11: "kidney cyst",
}
"""Name of each label."""

_SPINE_Y = 40.0


def ct_phantom_volume(
    rng: np.random.Generator, shape: tuple[int, int, int] = SHAPE, *, artefacts: bool = True
) -> tuple[Array, Array]:
    """Make the phantom.

    Parameters
    ----------
    rng
        The only source of chance.
    shape
        `(z, y, x)`; the body keeps its size, so that fewer samples are wider apart.
    artefacts
        Whether to send every slice through a simulated scanner for its noise, beam hardening and streaks.

    Returns
    -------
    image
        `(z, y, x)` int16 in Hounsfield units; z upwards, y to the back, x to the patient's left.
    organs
        `(z, y, x)` uint8, the keys of `ORGANS`.
    """
    spacing = tuple(s * n / m for s, n, m in zip(SPACING_MM, SHAPE, shape, strict=True))
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    sigma = tuple(14.0 / s for s in spacing)
    body = Body(z, y, x, np.full(shape, -1000.0), np.zeros(shape, dtype=np.uint8), smooth_noise(rng, shape, sigma))
    texture = smooth_noise(rng, shape, tuple(5.0 / s for s in spacing))
    inside = _wall(body, texture)
    _chest(body, texture)
    _organs(rng, body, texture, inside)
    _bowel(rng, body, texture, inside)
    _spine(body, texture)
    _vessels(body)
    hu = ndimage.gaussian_filter(body.hu, (0.35, 0.55, 0.55), mode="nearest")
    if artefacts:
        hu = hu + scan_error(rng, hu, spacing[1:])
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16), body.labels


def _outline(body: Body) -> Array:
    """Depth in mm below the skin: a flattened oval, fuller on one side, hollow along the back."""
    angle = np.arctan2(body.y / 112, body.x / 158)
    waist = 1.0 - 0.045 * np.exp(-(((body.z - 5) / 55) ** 2)) + 0.03 * np.clip(-body.z - 60, 0, 60) / 60
    wave = 1 + 0.018 * np.cos(2 * angle + 0.6) + 0.022 * np.sin(3 * angle + 0.4) + 0.010 * np.cos(5 * angle + 1.1)
    half_y, half_x = 110.0 * waist * wave, 157.0 * waist * wave
    norm = ((np.abs(body.y) / half_y) ** 2.25 + (np.abs(body.x + 3) / half_x) ** 2.25 + 1e-9) ** (1 / 2.25)
    groove = 9.0 * np.exp(-((body.x / 16) ** 2)) * (body.y > 40)
    depth = (1.0 - norm) * np.hypot(body.x, body.y) / np.maximum(norm, 0.05)
    return np.asarray(np.minimum(depth, 120.0) * 0.93 - groove + 0.8 * body.warp)


def _wall(body: Body, texture: Array) -> Array:
    """Couch, skin, fat and the muscles of the wall. Returns the share of each voxel within the abdominal cavity."""
    couch = body.y - 112 + 0.0012 * body.x**2
    body.put(np.minimum(couch, 9 - couch), -870.0)
    body.put(2.2 - np.abs(couch - 1), 60.0)
    depth = _outline(body)
    body.put(depth, 20.0)
    body.put(depth - 2.4, -104 + 7 * texture)
    angle = np.arctan2(body.y, body.x)
    fat = 13 + 8 * np.clip(-np.sin(angle), 0, 1) * np.clip(0.6 - body.z / 160, 0, 1) + 6 * np.clip(np.sin(angle), 0, 1)
    muscle = body.put(depth - fat, 56 + 6 * texture)
    thick = 11 + 9 * np.clip(np.sin(angle), 0, 1) ** 2 + 1.5 * body.warp
    inner = depth - fat - thick
    # Thin sheets of fat part the three layers of the flank.
    for part in (0.34, 0.67):
        body.put(
            0.9 - np.abs(depth - fat - part * thick) + 0.4 * texture, -40.0, within=muscle * (np.abs(body.x) > 60) * 0.7
        )
    body.put(inner, -98 + 8 * texture)
    for side in (-1, 1):
        erector = body.egg((0, 73, side * 30), (400, 21, 27), tilt=0.25 * side, rough=1.2)
        body.put(erector, 55 + 9 * texture)
    return np.clip(0.5 + inner / 2.6, 0, 1)


def _dome(body: Body) -> Array:
    """Height of the diaphragm in mm, `(y, x)` spread over z: higher on the right, falling to the flanks and the back."""
    right = 98 * np.exp(-(((body.x + 68) / 74) ** 2) - (((body.y + 8) / 88) ** 2))
    left = 88 * np.exp(-(((body.x - 70) / 68) ** 2) - (((body.y + 2) / 84) ** 2))
    front = 66 * np.exp(-((body.x / 55) ** 2) - (((body.y + 62) / 70) ** 2))
    return np.asarray(np.maximum(np.maximum(right, left) + 0.5 * np.minimum(right, left), front) + 1.2 * body.warp)


def _chest(body: Body, texture: Array) -> None:
    """Lung bases above the diaphragm, the heart's lower edge, and the ribs in the wall."""
    depth = _outline(body)
    above = (body.z - _dome(body)) * 0.7
    lung = np.minimum(above, depth - 27)
    lung = np.minimum(lung, np.hypot(body.x, (body.y - 62) * 1.1) - 40)
    lung = np.minimum(lung, np.hypot((body.x - 8) * 0.8, (body.y + 20) * 0.6) - 26)
    branches = np.clip(texture - 1.35, 0, None) * 330
    body.put(lung, -835 + 25 * texture + branches, label=7)
    body.put(body.egg((128, -36, 22), (38, 42, 56), tilt=0.3), 130 + 5 * texture)
    gullet = np.minimum(8.5 - np.hypot(body.x - 8, body.y - 2), body.z - 66)
    body.put(gullet, 42 + 6 * texture)
    around = np.arctan2(body.x, -body.y)
    for number in range(9):
        middle = -28 + 27 * number
        slope = 70 * np.cos(around) * (1 - 0.02 * number)
        high = middle - slope
        cut = np.minimum(depth - 17.5, 27.5 - depth)
        rib = np.minimum(cut * 1.1, 6.8 - np.abs(body.z - high) * 0.75)
        front = np.where(np.abs(around) < 0.75 + 0.11 * max(0, 6 - number), -6.0, 6.0)
        rib = np.minimum(rib, front)
        body.put(rib, 480.0)
        body.put(rib - 2.6, 230 + 40 * texture)


def _organs(rng: np.random.Generator, body: Body, texture: Array, inside: Array) -> None:
    """Stomach, liver with its gall bladder and a lesion, spleen, pancreas, kidneys with pelvis and a cyst."""
    below = _dome(body) - 5 - body.z
    stomach = body.egg((52, -38, 52), (52, 36, 40), tilt=-0.5, lean=0.45, rough=1.6)
    stomach = np.minimum(stomach, below * 0.7)
    body.put(stomach, 48.0, label=8, within=inside)
    body.put(stomach - 5, np.where(body.y < -52, -960.0, 18 + 12 * texture), label=8, within=inside)

    liver = np.maximum(
        body.egg((38, -4, -76), (84, 86, 70), tilt=0.35, rough=1.5),
        body.egg((62, -52, -2), (34, 36, 66), lean=-0.25, rough=1.2),
    )
    liver = np.minimum(liver, below * 0.75)
    liver = np.minimum(liver, body.egg((20, -6, -80), (150, 96, 84), rough=0.5) + 4)
    liver = np.minimum(liver, -body.egg((8, -18, -12), (42, 20, 27), tilt=0.5, rough=4.0))
    tree = ndimage.gaussian_filter(np.abs(texture) + 0.4 * np.abs(body.warp), 0.6)
    vessels = 48 * np.clip(0.17 - tree, 0, None) / 0.17
    body.put(liver, 106 + 4 * body.warp + vessels, label=1, within=inside)
    body.put(body.egg((36, 14, -92), (15, 13, 14), rough=1.2), 62 + 5 * texture, label=10, within=inside)
    body.put(body.egg((-4, -44, -46), (24, 15, 13), tilt=0.3, rough=0.6), 12.0, label=9, within=inside)

    spleen = body.egg((32, 32, 98), (52, 48, 30), tilt=-1.15, lean=-0.12, rough=1.3)
    spleen = np.minimum(spleen, -body.egg((36, 4, 62), (54, 36, 28)))
    body.put(np.minimum(spleen, below * 0.8), 121 + 4 * texture, label=2, within=inside)

    pancreas = np.maximum(
        body.egg((14, -10, 14), (11, 9, 48), tilt=-0.35, lean=-0.30, rough=2.2),
        body.egg((2, -12, -24), (20, 13, 13), rough=2.0),
    )
    body.put(pancreas, 88 + 12 * texture, within=inside)
    _kidney(body, texture, inside, side=-1, centre=(-16, 40, -63), label=3)
    _kidney(body, texture, inside, side=1, centre=(-4, 41, 64), label=4)
    cyst = body.egg((-28, 48, 92), (14, 14, 13))
    body.put(cyst, 6.0, label=11, within=inside)


def _kidney(
    body: Body, texture: Array, inside: Array, *, side: int, centre: tuple[float, float, float], label: int
) -> None:
    """Cortex brighter than the pyramids, fat and pelvis at the hilum, in a bed of fat."""
    lean, tilt = 0.22 * side, -0.45 * side
    bed = body.egg(centre, (64, 35, 38), tilt=tilt, lean=lean)
    body.put(bed, -102 + 6 * texture, within=inside * ~np.isin(body.labels, (1, 2, 8, 9, 10)))
    kidney = body.egg(centre, (55, 26, 29), tilt=tilt, lean=lean, rough=1.0)
    hilum = body.egg((centre[0], centre[1] - 10, centre[2] - 25 * side), (25, 12, 17), tilt=tilt)
    kidney = np.minimum(kidney, -hilum)
    body.put(kidney, 186 + 5 * texture, label=label, within=inside)
    turn = np.arctan2(body.z - centre[0], body.x - centre[2]) + 0.25 * texture
    pyramids = np.minimum(kidney - 8, 2.6 * np.cos(9 * turn) + 1.2)
    body.put(pyramids, 128 + 6 * texture, label=label, within=inside)
    sinus = body.egg((centre[0], centre[1] - 4, centre[2] - 11 * side), (27, 8, 11), tilt=tilt, rough=1.4)
    body.put(sinus, -62 + 25 * texture, within=inside)
    body.put(body.egg((centre[0], centre[1] - 5, centre[2] - 14 * side), (13, 5, 8), tilt=tilt), 8.0, within=inside)
    body.put(
        body.egg((centre[0] + 58, centre[1] - 14, centre[2] - 22 * side), (13, 3.4, 15), tilt=0.9 * side),
        52.0,
        within=inside,
    )


def _bowel(rng: np.random.Generator, body: Body, texture: Array, inside: Array) -> None:
    """Colon along the flanks and across, with gas and stool; small bowel in loops below."""
    free = inside * (body.labels == 0) * (body.hu < 0)
    colon = (
        [(-120, 8, -104), (-80, 6, -112), (-45, 8, -110), (-20, -14, -100)],
        [(-30, -62, -92), (-38, -76, -45), (-44, -80, 5), (-30, -74, 50), (-8, -56, 88)],
        [(0, 0, 112), (-40, 14, 116), (-85, 18, 114), (-125, 10, 104)],
    )
    for points, radius in zip(colon, (22.0, 17.0, 15.0), strict=True):
        depth = tube(body, np.array(points, dtype=float), radius) + 2.5 * np.cos(body.z / 7) * (radius > 16) + body.warp
        body.put(depth, 45.0, within=free)
        stool = 30 + 45 * texture - 260 * np.clip(texture - 0.9, 0, 1)
        body.put(depth - 3.5, stool, within=free)
        gas = np.minimum(depth - 4, -(body.y - np.median([p[1] for p in points]) + 5))
        body.put(gas, -930.0, within=free)
    # The vessels of the mesentery: soft threads in the fat before the spine.
    threads = np.clip(0.14 - np.abs(texture + 0.3 * body.warp), 0, None) / 0.14
    middle = np.clip(1 - np.hypot(body.x / 75, (body.y + 22) / 42), 0, 1) * (body.z < 30) * free
    body.hu += 95 * threads * middle
    for _ in range(48):
        start = np.array([rng.uniform(-135, 14), rng.uniform(-70, 12), rng.uniform(-85, 85)])
        walk = start + np.cumsum(rng.normal(0, 1, (5, 3)) * np.array([9, 11, 25]), axis=0)
        radius = rng.uniform(9.5, 12.5)
        filled, gassy = rng.uniform(8, 38), rng.random() < 0.25
        depth = tube(body, walk, float(radius)) + 0.8 * texture
        spare = free * (body.hu < -20) * np.clip((2 - body.y) / 4, 0, 1) * np.clip((34 - body.z) / 4, 0, 1)
        body.put(depth, 78.0, within=spare)
        body.put(depth - 3, filled + 14 * texture, within=spare)
        if gassy and walk[:, 1].mean() < -18:
            body.put(np.minimum(depth - 3.5, walk[:, 1].mean() - 3 - body.y), -900.0, within=spare)


def _bow(body: Body) -> Array:
    """How far the small of the back is bent forwards, mm, at each height; negative is forwards."""
    return np.asarray(-7 * np.cos((body.z + 40) / 55))


def _spine(body: Body, texture: Array) -> None:
    """Vertebrae with discs, arch, processes and canal, the psoas beside them, and the wings of the pelvis below."""
    bow = _bow(body)
    dy = body.y - _SPINE_Y - bow
    for side in (-1, 1):
        width = np.clip(15 + (-body.z) * 0.13, 7, 32)
        off = body.x - side * np.clip(33 + (-body.z) * 0.13, 25, 52)
        body.put((1 - np.hypot(off / width, (dy - 4) / (width * 1.05))) * width, 60 + 6 * texture)
        wing = np.abs(body.y - 26 + 0.55 * (np.abs(body.x) - 70) - 0.007 * (np.abs(body.x) - 82) ** 2) * 0.8
        hip = np.minimum(6.5 - wing, np.minimum(np.abs(body.x) - 44, 118 - np.abs(body.x)))
        hip = np.minimum(hip, (-82 - body.z - 0.006 * (body.x * side - 88) ** 2) * 0.8) - 40 * (body.x * side < 0)
        body.put(hip, 520.0)
        body.put(hip - 2.6, 210 + 45 * texture)
    # Vertebral height 34 mm with its disc; the disc is the dip of the level function.
    level = np.abs((body.z + 6) / 34 - np.rint((body.z + 6) / 34)) * 34
    waist = 1.6 * np.cos(level / 17 * np.pi)
    column = (1 - np.hypot(body.x / 25, dy / 18.5)) * 20 - waist
    column = np.minimum(column, 6 + dy * -1 + 10)
    disc = 17 - level - 4.0
    body.put(column, 84 + 6 * texture)
    bone = np.minimum(column, disc)
    body.put(bone, 460.0, label=5)
    body.put(bone - 2.4, 205 + 34 * texture, label=5)
    arch = np.minimum(17 - np.hypot(body.x, dy - 26) * 1.0, np.hypot(body.x / 1.15, dy - 25) - 9.5)
    arch = np.minimum(arch, 11.0 - np.abs(level - 4) * 0.8)
    spinous = np.minimum(np.minimum(4.2 - np.abs(body.x), 13 - np.abs(dy - 46)), 9 - np.abs(level - 3) * 0.8)
    across = np.minimum(
        np.minimum(4.4 - np.abs(dy - 15 - 0.2 * np.abs(body.x)), 37 - np.abs(body.x)), 6.0 - level * 0.9
    )
    across = np.minimum(across, np.abs(body.x) - 12)
    process = np.maximum(np.maximum(arch, spinous), across)
    body.put(process, 520.0, label=5)
    body.put(process - 2.8, 240 + 40 * texture, label=5)
    body.put(9.6 - np.hypot(body.x / 1.2, dy - 25), 18.0)
    body.put(5.2 - np.hypot(body.x / 1.15, dy - 25), 38.0)


def _vessels(body: Body) -> None:
    """Aorta on the left before the spine, vena cava on the right, and the two main renal vessels of each side."""
    front = _SPINE_Y + _bow(body) - 27
    fork = np.clip(-body.z - 88, 0, None) * 0.75
    aorta = 11.0 - 3.0 * (fork > 0) - np.hypot(np.abs(body.x - 12) - fork, body.y - front)
    cava = (1 - np.hypot((np.abs(body.x + 20) - fork * 0.9) / 13, (body.y - front - 2) / 10)) * 11
    body.put(cava, 132.0, within=(body.labels != 5).astype(float))
    for side, high in ((1, -2.0), (-1, -14.0)):
        path = np.array([(high + 6, 24, 8 * side), (high + 2, 29, 28 * side), (high, 38, 46 * side)], dtype=float)
        body.put(tube(body, path, 4.2), 150.0, within=(body.labels != 5).astype(float))
    body.put(aorta, 208.0, label=6)
    wall = np.minimum(
        1.4 - np.abs(aorta), np.sin(body.z / 5) + np.cos(3 * np.arctan2(body.y - front, body.x - 12)) - 1.1
    )
    body.put(wall, 480.0, label=6)
