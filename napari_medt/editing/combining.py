"""Labels that change as a whole, and structures combined with another mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from napari_medt.core import BadEdit
from napari_medt.core.volume import Array
from napari_medt.editing.checks import check_image, check_label, structure_box
from napari_medt.editing.edit import Edit, make_edit
from napari_medt.editing.parts import among, box_of, box_where, read


def relabel(labels: Array, value: int, *, to: int) -> Edit:
    """Give a structure another label, which must be free.

    Parameters
    ----------
    labels
        `(y, x)` or `(z, y, x)`, whole numbers.
    value, to
        Its label now and then.

    Raises
    ------
    BadEdit
        If the structure is not there, the mask cannot hold the label, or another structure has it.
    """
    check_label(labels, to)
    if to != value and box_of(labels, (to,)) is not None:
        raise BadEdit(f"Label {to} is in use in this mask", remedy="choose another one, or merge the two")
    return _become("relabel", labels, (value,), to)


def merge(labels: Array, values: Sequence[int], *, to: int) -> Edit:
    """Make one structure of several.

    Parameters
    ----------
    labels
        As for `relabel`.
    values
        Labels of the structures; `to` may be among them.
    to
        Label of the result.

    Raises
    ------
    BadEdit
        If none of the structures is there, or the mask cannot hold the label.
    NothingToChange
        If all there is has that label already.
    """
    check_label(labels, to)
    return _become("merge", labels, values, to)


def combine(labels: Array, value: int, mask: Array, *, how: Literal["add", "subtract", "intersect"]) -> Edit:
    """Combine a structure with another mask: of another layer, another reader, a model.

    Parameters
    ----------
    labels
        As for `relabel`.
    value
        Label of the structure.
    mask
        Of the same shape; anything not zero is inside.
    how
        `"add"` what is in the mask, `"subtract"` it, or keep what lies in both (`"intersect"`).

    Raises
    ------
    BadEdit
        If the shapes differ, the structure is not there to take from, or nothing of it would be left.
    NothingToChange
        If the mask makes no difference.

    Examples
    --------
    >>> import numpy as np
    >>> combine(np.array([[1, 1, 0]], np.uint8), 1, np.array([[0, 1, 1]]), how="intersect").box
    (slice(0, 1, None), slice(0, 1, None))
    """
    check_image(labels, mask)
    check_label(labels, value)
    if how == "add":
        found = box_where(mask, lambda block: np.asarray(block != 0))
        if found is None:
            raise BadEdit("There is nothing in the mask to add", remedy="choose another one")
        box = found
    else:
        box = structure_box(labels, (value,))
    before = read(labels, box)
    inside = read(mask, box) != 0
    after = before.copy()
    if how == "add":
        after[inside] = value
    else:
        after[(before == value) & (inside if how == "subtract" else ~inside)] = 0
        if not (after == value).any():
            raise BadEdit(f"This would leave nothing of label {value}", remedy="erase the structure if that is meant")
    return make_edit(f"{how} mask", (value,), box, before, after, unchanged="The mask makes no difference here")


def _become(name: str, labels: Array, values: Sequence[int], to: int) -> Edit:
    box = structure_box(labels, values)
    before = read(labels, box)
    after = before.copy()
    after[among(before, values)] = to
    return make_edit(name, (*values, to), box, before, after, unchanged=f"All of this has label {to} already")
