"""Which voxels of a mask were corrected, by whom, and what stood there before: what fine-tuning weighs."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_medt.cases.entry import Entry
from napari_medt.core import BadCase
from napari_medt.core.volume import Array

HAND, TOOL = 1, 2
_CODES = {"hand": HAND, "tool": TOOL}


@dataclass(frozen=True, eq=False)
class EditedMask:
    """Where a mask differs from what the model, a file, or nobody, had put there.

    Attributes
    ----------
    by
        `HAND` or `TOOL` where a correction stands, else 0; uint8, of the mask's shape.
    was
        The value before the first of these corrections, of the mask's shape; 0 elsewhere. Beside the mask as it is it
        says how a voxel was corrected: added, taken away, or given to another structure.
    """

    by: Array
    was: Array


class Corrections:
    """Corrections gathered change by change, in the order in which they were made.

    A later run of a model, or a mask from a file, takes what it changed out again. So does a correction that ends at the
    value before.
    """

    def __init__(self) -> None:
        self._by: Array | None = None
        self._was: Array | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was gathered."""
        return self._by is None

    def add(self, entry: Entry) -> None:
        """Take one change in."""
        if self._by is None and entry.by not in _CODES:
            return
        by, was = self._reaching(tuple(stop for _, stop in entry.box), np.dtype(entry.dtype))
        by, was = by[entry.slices], was[entry.slices]
        before, after = entry.before(), entry.after()
        changed = before != after
        if entry.by in _CODES:
            first = changed & (by == 0)
            was[first] = before[first]
            by[changed] = _CODES[entry.by]
            changed &= after == was
        by[changed] = 0
        was[changed] = 0

    def mask(self, shape: tuple[int, ...]) -> EditedMask:
        """Return what was gathered for a mask of a shape, arrays of their own.

        Raises
        ------
        BadCase
            If changes lie outside it.
        """
        by, was = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8 if self._was is None else self._was.dtype)
        if self._by is not None and self._was is not None:
            if len(shape) != self._by.ndim or any(a > b for a, b in zip(self._by.shape, shape, strict=True)):
                raise BadCase(f"Changes of a mask of shape {self._by.shape} do not fit one of shape {shape}")
            inside = tuple(slice(0, size) for size in self._by.shape)
            by[inside], was[inside] = self._by, self._was
        return EditedMask(by, was)

    def copy(self) -> Corrections:
        """Return the same, to be added to apart from this."""
        other = Corrections()
        if self._by is not None and self._was is not None:
            other._by, other._was = self._by.copy(), self._was.copy()
        return other

    def to_bytes(self) -> bytes:
        """Return everything, compressed; nothing for nothing."""
        if self._by is None or self._was is None:
            return b""
        by, was = zlib.compress(self._by.data, 1), zlib.compress(self._was.data, 1)
        head = json.dumps({"shape": self._by.shape, "dtype": self._was.dtype.str, "by": len(by)}).encode()
        return b"".join((head, b"\n", by, was))

    @classmethod
    def from_bytes(cls, data: bytes) -> Corrections:
        """Return what `to_bytes` made.

        Raises
        ------
        BadCase
            If the bytes are something else.
        """
        made = cls()
        if data:
            try:
                start = data.index(b"\n") + 1
                head: dict[str, Any] = json.loads(data[:start])
                middle = start + int(head["by"])
                made._by = _unpack(data[start:middle], np.dtype(np.uint8), head["shape"])
                made._was = _unpack(data[middle:], np.dtype(head["dtype"]), head["shape"])
            except (ValueError, KeyError, TypeError, zlib.error) as error:
                raise BadCase("What a case says of older corrections is not of a form this version knows") from error
        return made

    def _reaching(self, stops: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """The arrays, made larger where a change lies behind their end, and of a type that holds its values."""
        if self._by is None or self._was is None:
            self._by, self._was = np.zeros(stops, np.uint8), np.zeros(stops, dtype)
        if any(stop > size for stop, size in zip(stops, self._by.shape, strict=True)):
            more = [(0, max(0, stop - size)) for stop, size in zip(stops, self._by.shape, strict=True)]
            self._by, self._was = np.pad(self._by, more), np.pad(self._was, more)
        self._was = self._was.astype(np.promote_types(self._was.dtype, dtype), copy=False)
        return self._by, self._was


def _unpack(data: bytes, dtype: np.dtype[Any], shape: list[int]) -> Array:
    return np.frombuffer(bytearray(zlib.decompress(data)), dtype).reshape(shape)
