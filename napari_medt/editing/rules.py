"""What a change may not touch: locked structures, frozen regions, and structures it is not about."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_medt.core import BadEdit, OverlapFound
from napari_medt.core.volume import Array
from napari_medt.editing.edit import Edit, make_edit
from napari_medt.editing.parts import among, read

OverlapPolicy = Literal["keep", "replace", "ask"]

_REFUSED = "All that would change is locked, frozen, or belongs to structures that are kept"


@dataclass(frozen=True, eq=False)
class Rules:
    """One set of rules for the brush, the tools and the models alike.

    Attributes
    ----------
    locked
        Labels that neither lose nor gain a voxel. With 0 among them nothing is painted on the background, nor erased.
    frozen
        Where no voxel changes, of the mask's shape; anything not zero is frozen. It may lie on disk.
    overlap
        What happens to voxels of structures the change is not about: they are kept, replaced, or the user is asked.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.array([[0, 1, 2]], np.uint8)
    >>> edit = make_edit("mark", (3,), (slice(0, 1), slice(0, 3)), labels, np.full_like(labels, 3))
    >>> Rules(locked={1}).permit(edit).after.tolist()
    [[3, 1, 3]]
    >>> Rules(locked={1}, overlap="keep").permit(edit).after.tolist()
    [[3]]
    """

    locked: Collection[int] = ()
    frozen: Array | None = None
    overlap: OverlapPolicy = "replace"

    def permit(self, edit: Edit) -> Edit:
        """Return what is left of a change.

        Raises
        ------
        NothingToChange
            If nothing is left.
        OverlapFound
            If there are voxels to ask about; the answer is another `overlap`.
        BadEdit
            If the frozen region is not of the mask's shape.
        """
        before, after = edit.before, edit.after
        allowed = edit.changed
        if self.locked:
            allowed &= ~(among(before, self.locked) | among(after, self.locked))
        if self.frozen is not None:
            frozen = read(self.frozen, edit.box)
            if frozen.shape != before.shape:
                raise BadEdit(f"The frozen region of shape {self.frozen.shape} does not lie on this mask")
            allowed &= frozen == 0
        if self.overlap != "replace":
            others = allowed & ~among(before, (0, *edit.structures))
            if self.overlap == "ask" and others.any():
                raise _overlap(edit.name, before[others])
            allowed &= ~others
        return make_edit(
            edit.name, edit.structures, edit.box, before, np.where(allowed, after, before), unchanged=_REFUSED
        )


def _overlap(name: str, taken: Array) -> OverlapFound:
    found = {int(label): int(count) for label, count in zip(*np.unique(taken, return_counts=True), strict=True)}
    said = ", ".join(f"{count} from label {label}" for label, count in found.items())
    return OverlapFound(f"The change {name!r} would take voxels from other structures: {said}", found)
