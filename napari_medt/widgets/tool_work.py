"""A tool's work off the window's thread: what it would change under the rules, and how that looks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from napari_medt.core import BadEdit
from napari_medt.editing import Edit, Rules
from napari_medt.widgets.guard import Verdict, judge
from napari_medt.widgets.tools import Tool, Wish

ADDED, REMOVED, GIVEN = 1, 2, 3


@dataclass(frozen=True, eq=False)
class Outlook:
    """What a tool would do.

    Attributes
    ----------
    verdict
        On the change, under the rules as they are.
    picture
        What becomes of each voxel of the box: 0 nothing, or `ADDED`, `REMOVED`, `GIVEN` to another structure.
    voxels
        How many of each.
    """

    verdict: Verdict
    picture: np.ndarray
    voxels: dict[int, int]


def look_ahead(tool: Tool, wish: Wish, rules: Rules) -> Outlook:
    """Work out what a tool would change.

    Raises
    ------
    BadEdit
        If it can do nothing, with the reason.
    """
    verdict = judge(rules, tool.work(wish))
    edit = verdict.edit or verdict.asked
    if edit is None:
        raise verdict.refused or BadEdit("Nothing would change")
    picture = np.zeros(edit.before.shape, np.uint8)
    changed = edit.changed
    picture[changed] = GIVEN
    picture[changed & (edit.before == 0)] = ADDED
    picture[changed & (edit.after == 0)] = REMOVED
    found = np.bincount(picture.ravel(), minlength=4)
    return Outlook(verdict, picture, {kind: int(found[kind]) for kind in (ADDED, REMOVED, GIVEN) if found[kind]})


def piece_of_stroke(tool: Tool, wish: Wish, rules: Rules) -> Edit | None:
    """Return what a piece of a stroke paints; about others the user is asked when it has ended."""
    try:
        drawn = replace(rules, overlap="replace" if rules.overlap == "ask" else rules.overlap)
        return judge(drawn, tool.work(wish)).edit
    except BadEdit:
        return None
