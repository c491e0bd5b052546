"""One change of a mask: what it was called, where it was, and the values before and after, compressed."""

from __future__ import annotations

import json
import secrets
import struct
import time
import zlib
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np

from napari_medt.core import BadCase
from napari_medt.core.volume import Array

Kind = Literal["edit", "undo", "redo"]
By = Literal["hand", "tool", "model", "file", "undo"]
Box = tuple[slice, ...]

_LEVEL = 1  # label values compress well at once; higher levels cost a stroke its few milliseconds
_HEAD = struct.Struct("<I")


@dataclass(frozen=True)
class Entry:
    """A change, as it was made, undone or made again.

    Attributes
    ----------
    name
        Of the operation, for the user: `"brush"`, `"run medt-nuclei"`.
    structure
        Name of the structure it was about; may be empty.
    box
        `(start, stop)` along each axis: the smallest box that holds all changes.
    dtype
        Of the mask, as numpy names it.
    packed_before, packed_after
        The values in the box, compressed.
    time
        When, in seconds since 1970.
    kind
        `"edit"`, or `"undo"` or `"redo"` of one: then `after` is what the mask became by that.
    by
        Who changed the mask: a brush in the user's `"hand"`, a `"tool"`, a `"model"`, a `"file"` it was taken from, or `"undo"`,
        which redo is too.
    value
        Of the structure in the mask; None where it was about several or none.
    id
        The same for an edit, its undo and its redo, and for no other edit.
    """

    name: str
    structure: str
    box: tuple[tuple[int, int], ...]
    dtype: str
    packed_before: bytes = field(repr=False)
    packed_after: bytes = field(repr=False)
    time: float
    kind: Kind = "edit"
    by: By = "hand"
    value: int | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def slices(self) -> Box:
        """The box as an index into the mask."""
        return tuple(slice(start, stop) for start, stop in self.box)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the box."""
        return tuple(stop - start for start, stop in self.box)

    @property
    def title(self) -> str:
        """Name with the structure, for menus: `"fill between slices, liver"`; a step back says that it is one."""
        what = f"{self.name}, {self.structure}" if self.structure else self.name
        return what if self.kind == "edit" else f"{self.kind}: {what}"

    @property
    def nbytes(self) -> int:
        """Size in memory, about."""
        return len(self.packed_before) + len(self.packed_after) + 500

    @property
    def bare(self) -> bool:
        """Whether the values are kept elsewhere."""
        return not self.packed_after

    def without_values(self) -> Entry:
        """Return what the change was, without the values before and after it."""
        return replace(self, packed_before=b"", packed_after=b"")

    def before(self) -> Array:
        """Return the values in the box before the change, an array of its own."""
        return self._unpack(self.packed_before)

    def after(self) -> Array:
        """Return the values in the box after the change, an array of its own."""
        return self._unpack(self.packed_after)

    def step(self, *, back: bool) -> Entry:
        """Return the change that takes this one back, of kind `"undo"`, or brings it back, of kind `"redo"`."""
        before, after = self.packed_before, self.packed_after
        if back:
            before, after = after, before
        kind: Kind = "undo" if back else "redo"
        return replace(self, kind=kind, by="undo", time=time.time(), packed_before=before, packed_after=after)

    def apply(self, labels: Array) -> None:
        """Write the values after the change into a mask, in place.

        Raises
        ------
        BadCase
            If the mask has other axes, is smaller than the box, or cannot hold the values.
        """
        check_fits(self, labels.shape, labels.dtype)
        labels[self.slices] = self.after()

    def to_bytes(self, sequence: int) -> bytes:
        """Return everything with a running number as bytes for a file."""
        head = {
            "sequence": sequence,
            "name": self.name,
            "structure": self.structure,
            "box": self.box,
            "dtype": self.dtype,
            "time": self.time,
            "kind": self.kind,
            "by": self.by,
            "value": self.value,
            "id": self.id,
            "before": len(self.packed_before),
        }
        encoded = json.dumps(head, ensure_ascii=True).encode()
        return b"".join((_HEAD.pack(len(encoded)), encoded, self.packed_before, self.packed_after))

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[int, Entry]:
        """Return running number and entry from what `to_bytes` made.

        Raises
        ------
        BadCase
            If the bytes are something else.
        """
        try:
            (length,) = _HEAD.unpack_from(data)
            start = _HEAD.size + length
            head: dict[str, Any] = json.loads(data[_HEAD.size : start])
            middle = start + int(head["before"])
            entry = cls(
                name=str(head["name"]),
                structure=str(head["structure"]),
                box=tuple((int(a), int(b)) for a, b in head["box"]),
                dtype=_label_dtype(np.dtype(head["dtype"])),
                packed_before=data[start:middle],
                packed_after=data[middle:],
                time=float(head["time"]),
                kind=cast(Kind, head["kind"]),
            )
            for name in ("by", "value", "id"):  # not yet there in the first form of the journal
                if name in head:
                    entry = replace(entry, **{name: head[name]})
            return int(head["sequence"]), entry
        except (struct.error, ValueError, KeyError, TypeError) as error:
            raise BadCase("A change in the case's journal is not of a form this version knows") from error

    def _unpack(self, packed: bytes) -> Array:
        return np.frombuffer(bytearray(zlib.decompress(packed)), dtype=self.dtype).reshape(self.shape)


def make_entry(
    name: str,
    box: Box,
    before: Array,
    after: Array,
    *,
    structure: str = "",
    value: int | None = None,
    by: By = "hand",
) -> Entry:
    """Pack a change.

    Parameters
    ----------
    name
        Of the operation.
    box
        Where in the mask; slices with start and stop, step 1.
    before, after
        The values in the box, of its shape; whole numbers of the same dtype.
    structure, value
        Name of the structure it was about, and its value in the mask.
    by
        Who made it.

    Raises
    ------
    BadCase
        If shapes or dtypes do not fit each other.
    """
    limits = tuple((int(part.start), int(part.stop)) for part in box)
    shape = tuple(stop - start for start, stop in limits)
    if before.shape != shape or after.shape != shape:
        raise BadCase(f"A change of shape {before.shape} to {after.shape} does not fit its box of shape {shape}")
    if before.dtype != after.dtype:
        raise BadCase(f"A mask of type {before.dtype} cannot become one of type {after.dtype} in one change")
    return Entry(
        name=name,
        structure=structure,
        box=limits,
        dtype=_label_dtype(before.dtype),
        packed_before=_pack(before),
        packed_after=_pack(after),
        time=time.time(),
        by=by,
        value=value,
    )


def changed_box(before: Array, after: Array) -> Box | None:
    """Return the smallest box that holds every difference of two arrays of one shape; None when they are equal."""
    box: list[slice] = []
    for axis in range(before.ndim):
        # Each axis is searched only where the ones before it left something.
        place = tuple(box)
        differs = _differs_along(before[place], after[place], axis)
        found = np.flatnonzero(differs)
        if not len(found):
            return None
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def _differs_along(before: Array, after: Array, axis: int) -> Array:
    """Say for each index along an axis whether anything differs there, in bands that stay in the processor's cache."""
    length = before.shape[axis]
    band = max(1, length * 1_000_000 // max(1, before.size))
    others = tuple(i for i in range(before.ndim) if i != axis)
    found = np.zeros(length, dtype=bool)
    for start in range(0, length, band):
        part = (slice(None),) * axis + (slice(start, start + band),)
        found[start : start + band] = (before[part] != after[part]).any(axis=others)
    return found


def check_fits(entry: Entry, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse to write a change into a mask of another form.

    Raises
    ------
    BadCase
        With both forms.
    """
    inside = len(entry.box) == len(shape) and all(
        0 <= start < stop <= size for (start, stop), size in zip(entry.box, shape, strict=True)
    )
    if not inside:
        raise BadCase(
            f"The change {entry.title!r} at {list(entry.box)} does not fit a mask of shape {tuple(shape)}",
            remedy="undo belongs to the mask it was recorded on",
        )
    if not np.can_cast(np.dtype(entry.dtype), dtype, "safe"):
        raise BadCase(
            f"The change {entry.title!r} holds {entry.dtype} labels, which a mask of type {dtype} cannot hold",
            remedy="undo belongs to the mask it was recorded on",
        )


def _pack(values: Array) -> bytes:
    return zlib.compress(np.ascontiguousarray(values).data, _LEVEL)


def _label_dtype(dtype: np.dtype[Any]) -> str:
    if dtype.kind not in "bui":
        raise BadCase(f"A mask holds whole numbers, but these are of type {dtype}")
    return dtype.str
