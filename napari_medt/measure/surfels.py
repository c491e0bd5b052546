"""Where the surface of a mask lies, and how large each element of it is: border voxels, or elements between voxels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations, product

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Reals = npt.NDArray[np.float64]

# Surface that marching cubes (Lorensen and Cline 1987), cutting edges in their middle, lays through a cube of eight
# voxels, for one cube of each kind; a cube turned, mirrored or with inside and outside exchanged is of the same kind.
# The key has a bit for each voxel inside, that of (0, 0, 0) highest. The values are the normals of the flat parts, as
# long as the part is large, in eighths of a face of the cube, their signs left out.
_CUBES: dict[int, tuple[tuple[int, int, int], ...]] = {
    0b00000000: (),
    0b00000001: ((1, 1, 1),),
    0b00000011: ((4, 4, 0),),
    0b00000110: ((2, 2, 2),),
    0b00011000: ((2, 2, 2),),
    0b00000111: ((1, 1, 1), (2, 2, 2), (4, 0, 0)),
    0b00011001: ((0, 4, 4), (1, 1, 1)),
    0b00010110: ((3, 3, 3),),
    0b00001111: ((8, 0, 0),),
    0b00010111: ((6, 6, 6),),
    0b00011011: ((0, 2, 2), (1, 1, 1), (2, 0, 2), (3, 3, 3)),
    0b00011110: ((2, 2, 2), (2, 2, 2), (4, 0, 0)),
    0b00111100: ((8, 8, 0),),
    0b01101001: ((4, 4, 4),),
}
# The same for four pixels (marching squares), in eighths of an edge.
_SQUARES: dict[int, tuple[tuple[int, int], ...]] = {
    0b0000: (),
    0b0001: ((4, 4),),
    0b0011: ((8, 0),),
    0b0110: ((8, 8),),
}


def border(mask: Mask) -> Mask:
    """Voxels of a mask that have a face in common with the outside; beyond the array is outside.

    Parameters
    ----------
    mask
        `(y, x)` or `(z, y, x)`.

    Returns
    -------
    numpy.ndarray
        Of the same shape.
    """
    inner = mask.copy()
    for axis in range(mask.ndim):
        values, kept = np.moveaxis(mask, axis, 0), np.moveaxis(inner, axis, 0)
        kept[1:] &= values[:-1]
        kept[:-1] &= values[1:]
        kept[:1] = kept[-1:] = False
    return mask & ~inner


def surface_elements(mask: Mask, spacing: Sequence[float]) -> Reals:
    """Size of the surface between neighbouring voxels, for each corner where 2 x 2 (x 2) voxels meet.

    Parameters
    ----------
    mask
        `(y, x)` or `(z, y, x)`; beyond the array is outside.
    spacing
        One an axis.

    Returns
    -------
    numpy.ndarray
        One longer than the mask along each axis; length in the unit of `spacing` in 2D, area in its square in 3D; 0 where
        no surface passes.
    """
    inside = mask.astype(np.uint8)
    codes = np.zeros([size + 1 for size in mask.shape], np.uint8)
    for bit, corner in enumerate(reversed(list(product((0, 1), repeat=mask.ndim)))):
        where = tuple(slice(1 - at, 1 - at + size) for at, size in zip(corner, mask.shape, strict=True))
        codes[where] |= inside << np.uint8(bit)
    sizes: Reals = _sizes(tuple(float(step) for step in spacing))[codes]
    return sizes


@lru_cache(maxsize=64)
def _sizes(spacing: tuple[float, ...]) -> Reals:
    """Size of the surface for each pattern of inside and outside."""
    ndim = len(spacing)
    sizes = np.zeros(2**2**ndim)
    # Of the part of a cell's wall across each axis.
    walls = np.prod(spacing) / np.array(spacing)
    for pattern, normals in (_SQUARES if ndim == 2 else _CUBES).items():
        cell = np.array([int(bit) for bit in f"{pattern:0{2**ndim}b}"]).reshape((2,) * ndim)
        for order in permutations(range(ndim)):
            parts = np.array(normals, np.float64).reshape(-1, ndim)[:, order] * walls / 8
            size = float(np.linalg.norm(parts, axis=1).sum())
            for flips in product((1, -1), repeat=ndim):
                turned = cell.transpose(order)[tuple(slice(None, None, step) for step in flips)]
                code = int("".join(map(str, turned.ravel())), 2)
                sizes[[code, len(sizes) - 1 - code]] = size
    return sizes
