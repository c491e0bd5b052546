"""`Geometry`: where the samples of an array lie, and the same said in the words of napari, ITK and NIfTI.

Array axes are `(y, x)` or `(z, y, x)`, and so are the axes of the world. The world of a patient is DICOM's, read backwards:
its x runs towards the patient's left, y towards the back, z towards the head. An axial scan, seen slice by slice with y
downwards, then lies as radiologists are used to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_medt.core.axes import AxisMap
from napari_medt.core.errors import BadImage

Array = npt.NDArray[Any]
Frame = Literal["image", "patient"]

SPATIAL_AXES = ("z", "y", "x")
_TOWARDS = ("SI", "PA", "LR")  # where the world's z, y, x run to, and where they come from
_LENGTHS_MM = {"mm": 1.0, "um": 1e-3}
_UNITS = {"px": "pixel", "mm": "millimeter", "um": "micrometer"}
_UNIT_NAMES = {name: unit for unit, name in _UNITS.items()} | {"mm": "mm", "um": "um", "µm": "um", "micron": "um"}


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the samples of an array lie.

    Attributes
    ----------
    affine
        `(n + 1, n + 1)` float64, from array index in axis order to world position in `units`; `n` spatial axes.
    units
        Unit of the world, `"px"` when the file gives none, else `"mm"` or `"um"`.
    frame
        `"patient"` where the axes of the world are the patient's (see the module), else `"image"`.
    """

    affine: Array
    units: str = "px"
    frame: Frame = "image"

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.ndim != 2 or affine.shape[0] != affine.shape[1] or affine.shape[0] not in (3, 4):
            raise BadImage(f"A geometry needs a 3x3 or 4x4 affine, but this one is of shape {affine.shape}")
        lengths = np.linalg.norm(affine[:-1, :-1], axis=0)
        if not np.isfinite(affine).all() or not lengths.all() or abs(np.linalg.det(affine[:-1, :-1] / lengths)) < 1e-6:
            raise BadImage("The affine of this image is singular or not finite, so positions cannot be computed")
        if self.frame == "patient" and (len(affine) != 4 or self.units != "mm"):
            raise BadImage("Only a scan of three axes in mm can lie in the frame of a patient")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def from_spacing(
        cls,
        spacing: Sequence[float],
        *,
        origin: Sequence[float] | None = None,
        units: str = "px",
        frame: Frame = "image",
    ) -> Geometry:
        """Geometry with axes along the world's axes; `spacing` and `origin` in `units`, one per spatial axis."""
        affine = np.diag([*map(float, spacing), 1.0])
        if origin is not None:
            affine[:-1, -1] = origin
        return cls(affine, units, frame)

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return int(self.affine.shape[0]) - 1

    @property
    def axis_names(self) -> tuple[str, ...]:
        """`("y", "x")` or `("z", "y", "x")`."""
        return SPATIAL_AXES[-self.ndim :]

    @property
    def unit_mm(self) -> float | None:
        """Length of one of `units` in mm; `None` for px, whose length is not known."""
        return _LENGTHS_MM.get(self.units)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between neighbouring samples along each axis, in `units`."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:-1, :-1], axis=0))

    @property
    def origin(self) -> tuple[float, ...]:
        """World position of the centre of the first sample, in `units`."""
        return tuple(float(o) for o in self.affine[:-1, -1])

    @property
    def direction(self) -> Array:
        """`(n, n)`: column `i` is the unit vector along array axis `i`, in the world."""
        return np.asarray(self.affine[:-1, :-1] / np.asarray(self.spacing))

    @cached_property
    def orientation(self) -> str:
        """Where each array axis runs to, nearest letter each, `"SPL"` for an axial scan; empty outside a patient."""
        if self.frame != "patient":
            return ""
        axes, signs = self._nearest_axes
        return "".join(_TOWARDS[axis][0 if sign > 0 else 1] for axis, sign in zip(axes, signs, strict=True))

    @property
    def is_oblique(self) -> bool:
        """Whether an axis deviates by more than a thousandth from every axis of the world."""
        direction = self.direction
        axes, _ = self._nearest_axes
        return bool((np.abs(direction[list(axes), range(self.ndim)]) < 1 - 5e-7).any())

    @cached_property
    def _nearest_axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """World axis that each array axis is nearest to, each taken once, and the sign of its direction."""
        direction = self.direction
        columns = range(self.ndim)
        axes = max(permutations(columns), key=lambda rows: float(np.abs(direction[list(rows), columns]).sum()))
        return axes, tuple(1 if direction[axis, column] >= 0 else -1 for column, axis in enumerate(axes))

    # ------------------------------------------------------------------------------------------------- rearranging

    def axes_towards(self, orientation: str = "") -> AxisMap:
        """How to rearrange an array of this geometry so that its axes run towards `orientation`.

        Parameters
        ----------
        orientation
            Three letters in array order, such as `"SPL"`; by default along the world's own axes, also outside a patient.

        Raises
        ------
        ValueError
            If the letters are not one of each pair, or the geometry is not a patient's.
        """
        axes, signs = self._nearest_axes
        wanted = list(zip(range(self.ndim), (1,) * self.ndim, strict=True))
        if orientation:
            places = {
                letter: (axis, sign)
                for axis, pair in enumerate(_TOWARDS)
                for letter, sign in zip(pair, (1, -1), strict=True)
            }
            wanted = [places[letter] for letter in orientation if letter in places]
            if self.frame != "patient" or len(orientation) != 3 or {axis for axis, _ in wanted} != {0, 1, 2}:
                raise ValueError(f"{orientation!r} is no orientation of this image")
        order = tuple(axes.index(axis) for axis, _ in wanted)
        return AxisMap(order, tuple(signs[old] != sign for old, (_, sign) in zip(order, wanted, strict=True)))

    def rearranged(self, axes: AxisMap, shape: Sequence[int]) -> Geometry:
        """Geometry of an array of `shape` after `axes.apply`."""
        turn = np.zeros_like(self.affine)
        turn[-1, -1] = 1
        for new, (old, flip) in enumerate(zip(axes.order, axes.flips, strict=True)):
            turn[old, new] = -1 if flip else 1
            turn[old, -1] = shape[old] - 1 if flip else 0
        return Geometry(self.affine @ turn, self.units, self.frame)

    def part(self, start: Sequence[float], *, step: Sequence[float] | None = None) -> Geometry:
        """Geometry of samples `start + i * step` of this grid, index units; a crop, or another sampling."""
        scale = Geometry.from_spacing(step or (1.0,) * self.ndim, origin=start)
        return Geometry(self.affine @ scale.affine, self.units, self.frame)

    def position(self, index: npt.ArrayLike) -> Array:
        """World positions `(..., n)` of array indices `(..., n)`, which may lie between samples."""
        return np.asarray(np.asarray(index) @ self.affine[:-1, :-1].T + self.affine[:-1, -1])

    def index(self, position: npt.ArrayLike) -> Array:
        """Array indices `(..., n)`, with fractions, of world positions `(..., n)`."""
        return np.asarray((np.asarray(position) - self.affine[:-1, -1]) @ np.linalg.inv(self.affine[:-1, :-1]).T)

    # ------------------------------------------------------------------------------------------ in others' words

    @classmethod
    def from_itk(
        cls, spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float], *, units: str = "mm"
    ) -> Geometry:
        """From ITK's words, whose axes are `(x, y, z)`, in a patient DICOM's; `direction` row by row. 2D lies in no patient."""
        n = len(spacing)
        affine = np.eye(n + 1)
        affine[:n, :n] = np.reshape(direction, (n, n)) * np.asarray(spacing)
        affine[:n, n] = origin
        return cls(_backwards(affine), units, "patient" if n == 3 and units == "mm" else "image")

    def to_itk(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """Spacing, origin and direction (row by row) as ITK has them, axes `(x, y, z)`."""
        direction = self.direction[::-1, ::-1]
        return self.spacing[::-1], self.origin[::-1], tuple(float(v) for v in direction.ravel())

    @classmethod
    def from_nifti(cls, affine: npt.ArrayLike) -> Geometry:
        """From a NIfTI affine: `(4, 4)`, index `(x, y, z)` to mm towards right, front and head."""
        return cls(_backwards(np.diag([-1.0, -1, 1, 1]) @ np.asarray(affine, np.float64)), "mm", "patient")

    def to_nifti(self) -> Array:
        """As an affine of NIfTI, `(4, 4)` in mm; micrometres are turned into mm, a 2D image lies at z = 0."""
        affine = np.eye(4)
        affine[-self.ndim - 1 :, -self.ndim - 1 :] = self.affine
        if self.units == "um":
            affine[:3] /= 1000
        return np.asarray(np.diag([-1.0, -1, 1, 1]) @ _backwards(affine))

    def to_layer(self) -> dict[str, Any]:
        """Keyword arguments that put a napari layer in this place; they belong together."""
        straight = np.allclose(self.direction, np.eye(self.ndim), atol=1e-9)
        inner = Geometry.from_spacing(self.spacing, origin=self.origin if straight else None).affine
        return {
            "scale": self.spacing,
            "translate": tuple(float(v) for v in inner[:-1, -1]),
            "rotate": np.eye(self.ndim),
            "shear": np.zeros(self.ndim * (self.ndim - 1) // 2),
            "affine": np.eye(self.ndim + 1) if straight else self.affine @ np.linalg.inv(inner),
            "units": (_UNITS[self.units],) * self.ndim,
            "axis_labels": self.axis_names,
        }

    @classmethod
    def from_layer(cls, attributes: Mapping[str, Any], *, ndim: int, frame: Frame = "image") -> Geometry:
        """Where a napari layer lies.

        Parameters
        ----------
        attributes
            `scale`, `translate`, `rotate`, `shear`, `affine` and `units` of the layer; what is missing is the identity.
        ndim
            How many of its last axes are meant.
        frame
            Of the world, which a layer cannot tell.

        Raises
        ------
        BadImage
            If the layer's transform cannot be undone.
        """
        inner = np.eye(ndim + 1)
        inner[:-1, :-1] = _rotation(attributes.get("rotate"), ndim) @ _shear(attributes.get("shear"), ndim)
        inner[:-1, :-1] *= _last(attributes.get("scale"), ndim, 1.0)
        inner[:-1, -1] = _last(attributes.get("translate"), ndim, 0.0)
        outer = attributes.get("affine")
        matrix = np.eye(ndim + 1) if outer is None else np.asarray(getattr(outer, "affine_matrix", outer), np.float64)
        keep = [*range(len(matrix) - 1 - ndim, len(matrix) - 1), -1] if len(matrix) > ndim + 1 else slice(None)
        units = unit_of(attributes.get("units"))
        return cls(matrix[keep][:, keep] @ inner, units, frame if units == "mm" and ndim == 3 else "image")

    # -------------------------------------------------------------------------------------------------- comparing

    def close_to(self, other: Geometry, *, shape: Sequence[int], tolerance: float = 1e-3) -> bool:
        """Whether every corner of an array of `shape` lies in the same place within `tolerance` of a sample."""
        if self.ndim != other.ndim or self.units != other.units:
            return False
        corners = np.stack(np.meshgrid(*((0, size - 1) for size in shape), indexing="ij"), -1)
        apart = np.linalg.norm(self.position(corners) - other.position(corners), axis=-1)
        return bool(apart.max() <= tolerance * min(self.spacing))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Geometry):
            return NotImplemented
        same = self.units == other.units and self.frame == other.frame
        return same and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.units, self.frame, self.affine.tobytes()))


def unit_of(units: Any) -> str:
    """Name a layer's unit as `Geometry` does: px, mm or um; pint's units and plain text are understood."""
    names = {str(unit) for unit in ((units,) if isinstance(units, str) else units or ())}
    return _UNIT_NAMES.get(names.pop(), "px") if len(names) == 1 else "px"


def _backwards(affine: Array) -> Array:
    """An affine with the order of its axes turned round, on both sides."""
    turned = affine.copy()
    turned[:-1, :-1] = affine[:-1, :-1][::-1, ::-1]
    turned[:-1, -1] = affine[:-1, -1][::-1]
    return turned


def _last(values: Any, count: int, default: float) -> tuple[float, ...]:
    """The last `count` numbers; those of axes that are missing are `default`."""
    numbers = [float(value) for value in (() if values is None else np.atleast_1d(values))][-count:]
    return (*(default for _ in range(count - len(numbers))), *numbers)


def _rotation(rotate: Any, ndim: int) -> Array:
    """The last axes of a layer's rotation, which is an angle in degrees or a matrix."""
    matrix = np.eye(ndim)
    if rotate is None:
        return matrix
    given = np.asarray(rotate, np.float64)
    if given.ndim == 0:
        c, s = np.cos(np.radians(given)), np.sin(np.radians(given))
        given = np.array([[c, -s], [s, c]])
    size = min(ndim, len(given))
    matrix[-size:, -size:] = given[-size:, -size:]
    return matrix


def _shear(shear: Any, ndim: int) -> Array:
    """The last axes of a layer's shear, which is the upper triangle row by row, or a matrix."""
    matrix = np.eye(ndim)
    if shear is None:
        return matrix
    given = np.asarray(shear, np.float64)
    if given.ndim == 1:
        size = round((1 + np.sqrt(1 + 8 * given.size)) / 2)
        upper = np.eye(size)
        upper[np.triu_indices(size, 1)] = given
        given = upper
    size = min(ndim, len(given))
    matrix[-size:, -size:] = given[-size:, -size:]
    return matrix
