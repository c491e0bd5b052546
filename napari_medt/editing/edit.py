"""`Edit`: what every tool returns, a change of a mask that is worked out but not yet made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from napari_medt.core import BadEdit, NothingToChange
from napari_medt.core.boxes import Box, bounding_box
from napari_medt.core.volume import Array
from napari_medt.editing.parts import read


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of a mask: look at it, apply it, or forget it. `make_edit` makes one.

    Attributes
    ----------
    name
        Of the operation, in the user's words: `"fill between slices"`.
    structures
        Labels the change is about. Taking voxels from any other structure is an overlap, see `Rules`.
    box
        Where, slices with start and stop along each axis of the mask: the smallest box that holds every changed voxel.
    before, after
        Values in the box, read-only; of the mask's dtype.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.array([[0, 1, 1], [0, 0, 2]], np.uint8)
    >>> edit = make_edit("mark", (2,), (slice(0, 2), slice(0, 3)), labels, np.where(labels == 1, 2, labels))
    >>> edit.box, edit.voxels
    ((slice(0, 1, None), slice(1, 3, None)), 2)
    >>> edit.apply(labels)
    >>> labels.tolist()
    [[0, 2, 2], [0, 0, 2]]
    """

    name: str
    structures: tuple[int, ...]
    box: Box
    before: Array = field(repr=False)
    after: Array = field(repr=False)

    @property
    def changed(self) -> Array:
        """Which voxels of the box change, for a preview."""
        return np.asarray(self.before != self.after)

    @property
    def voxels(self) -> int:
        """How many voxels change."""
        return int(np.count_nonzero(self.changed))

    def structure(self, names: Mapping[int, str]) -> str:
        """Say which structures the change is about: `"liver"`, `"liver and spleen"`, `"5 structures"`."""
        said = [names.get(label, f"label {label}") for label in self.structures]
        return " and ".join(said) if len(said) < 3 else f"{len(said)} structures"

    def apply(self, labels: Array) -> None:
        """Make the change in the mask, in place.

        Raises
        ------
        BadEdit
            If the mask is another one, or is no longer what it was in the box; nothing is written then.
        """
        fits = len(self.box) == labels.ndim and all(
            part.stop <= size for part, size in zip(self.box, labels.shape, strict=True)
        )
        if not fits or labels.dtype != self.before.dtype:
            raise BadEdit(f"The change {self.name!r} was worked out for another mask", remedy="work it out again")
        if not np.array_equal(read(labels, self.box), self.before):
            raise BadEdit(f"The mask has changed since {self.name!r} was worked out", remedy="work it out again")
        labels[self.box] = self.after

    def moved(self, start: Sequence[int]) -> Edit:
        """Return the change of a whole mask, of which the tool was given only the part that begins at index `start`."""
        box = tuple(slice(part.start + by, part.stop + by) for part, by in zip(self.box, start, strict=True))
        return replace(self, box=box)

    def on_slice(self, axis: int, index: int) -> Edit:
        """Return the change of a volume, of which the tool was given only slice `index` along `axis`."""
        box = (*self.box[:axis], slice(index, index + 1), *self.box[axis:])
        return replace(self, box=box, before=np.expand_dims(self.before, axis), after=np.expand_dims(self.after, axis))


def make_edit(
    name: str,
    structures: Iterable[int],
    box: Box,
    before: Array,
    after: Array,
    *,
    unchanged: str = "Nothing would change",
) -> Edit:
    """Compare two states of a mask; also for the results of models and for strokes made elsewhere.

    Parameters
    ----------
    name
        Of the operation.
    structures
        Labels the change is about; none for a model's result, whose every voxel on an existing structure is an overlap.
    box
        Where in the mask `before` and `after` lie.
    before, after
        Values in the box; the changed part of both is copied.
    unchanged
        What to tell the user when nothing differs.

    Raises
    ------
    BadEdit
        If box, shapes and dtypes do not fit each other.
    NothingToChange
        If nothing differs.
    """
    shape = tuple(part.stop - part.start for part in box)
    if before.shape != shape or after.shape != shape:
        raise BadEdit(f"A change of shape {before.shape} to {after.shape} does not fit its place of shape {shape}")
    if after.dtype.kind not in "bui":
        raise BadEdit(f"A mask of type {before.dtype} cannot hold labels of type {after.dtype}")
    part = bounding_box(before != after)
    if part is None:
        raise NothingToChange(unchanged)
    kept = [np.array(values[part], dtype=before.dtype) for values in (before, after)]
    if after.dtype != before.dtype and not np.array_equal(kept[1], after[part]):
        raise BadEdit(f"A mask of type {before.dtype} cannot hold the label {int(after[part].max())}")
    for values in kept:
        values.setflags(write=False)
    place = tuple(
        slice(whole.start + inner.start, whole.start + inner.stop) for whole, inner in zip(box, part, strict=True)
    )
    return Edit(name, tuple(sorted(set(structures))), place, kept[0], kept[1])
