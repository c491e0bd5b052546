"""Solids to build a phantom of: ellipsoids and tubes with soft edges, laid over one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_medt.sample_data.shapes import Array


@dataclass(eq=False)
class Body:
    """A volume while it is built.

    Attributes
    ----------
    z, y, x
        `(z, y, x)` coordinates of the samples about the body's centre, mm.
    hu
        `(z, y, x)` Hounsfield units, changed in place.
    labels
        `(z, y, x)` uint8, changed in place.
    warp
        `(z, y, x)` smooth noise that makes surfaces irregular.
    """

    z: Array
    y: Array
    x: Array
    hu: Array
    labels: Array
    warp: Array

    def put(self, depth: Array, value: Array | float, *, label: int = 0, within: Array | None = None) -> Array:
        """Lay a solid over what is there: `depth` in mm, positive inside. Returns the share of each voxel it fills."""
        share = np.clip(0.5 + depth / 2.6, 0.0, 1.0)
        if within is not None:
            share = share * within
        self.hu += (value - self.hu) * share
        if label:
            self.labels[share > 0.5] = label
        else:
            self.labels[share > 0.5] = 0
        return share

    def egg(
        self,
        centre: tuple[float, float, float],
        radii: tuple[float, float, float],
        *,
        tilt: float = 0.0,
        lean: float = 0.0,
        rough: float = 0.0,
    ) -> Array:
        """Depth in mm within an ellipsoid, centre and radii `(z, y, x)`.

        `tilt` turns it about z and `lean` about y, radians; `rough` shifts its surface by that many mm.
        """
        dz, dy, dx = self.z - centre[0], self.y - centre[1], self.x - centre[2]
        a, b = dx * np.cos(tilt) + dy * np.sin(tilt), dy * np.cos(tilt) - dx * np.sin(tilt)
        a, dz = a * np.cos(lean) + dz * np.sin(lean), dz * np.cos(lean) - a * np.sin(lean)
        norm = np.sqrt((dz / radii[0]) ** 2 + (b / radii[1]) ** 2 + (a / radii[2]) ** 2 + 1e-9)
        slope = np.sqrt((dz / radii[0] ** 2) ** 2 + (b / radii[1] ** 2) ** 2 + (a / radii[2] ** 2) ** 2) / norm
        return np.asarray((1.0 - norm) / np.maximum(slope, 1e-3) + rough * self.warp)


def tube(body: Body, points: Array, radius: float) -> Array:
    """Depth in mm within a tube about a smooth line through `points`, rows of z, y, x in mm."""
    count = max(2, int(np.linalg.norm(np.diff(points, axis=0), axis=1).sum() / 3.0))
    at = np.linspace(0, len(points) - 1, count)
    line = np.column_stack([np.interp(at, np.arange(len(points)), points[:, axis]) for axis in range(3)])
    line = ndimage.gaussian_filter1d(line, 3.0, axis=0, mode="nearest")
    steps = [body.z[1, 0, 0] - body.z[0, 0, 0], body.y[0, 1, 0] - body.y[0, 0, 0], body.x[0, 0, 1] - body.x[0, 0, 0]]
    nearest = np.full(body.z.shape, 1e6)
    for z, y, x in line:
        box = []
        for centre, step, size in zip((z, y, x), steps, nearest.shape, strict=True):
            middle, reach = centre / step + (size - 1) / 2, (radius + 8) / step
            box.append(slice(max(0, int(middle - reach)), min(size, int(middle + reach) + 2)))
        cut = tuple(box)
        if all(part.start < part.stop for part in cut):
            away = (body.z[cut] - z) ** 2 + (body.y[cut] - y) ** 2 + (body.x[cut] - x) ** 2
            nearest[cut] = np.minimum(nearest[cut], away)
    return np.asarray(radius - np.sqrt(nearest))
