"""What the rules leave of a change, and what the user has to be asked; the one gate for brush, tools, models and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from napari_medt.cases import Entry, Journal
from napari_medt.core import BadEdit, NothingToChange, OverlapFound
from napari_medt.editing import Edit, Rules
from napari_medt.editing.parts import among, around
from napari_medt.widgets import texts

Box = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Verdict:
    """What becomes of a change that was asked for.

    Attributes
    ----------
    edit
        What may be made at once; `None` where that is nothing.
    asked
        The whole change, where it would take voxels from other structures and the user wants to be asked.
    taken
        How many voxels that would be, by label.
    refused
        Why nothing may be made.
    rules
        Under which this holds.
    """

    rules: Rules
    edit: Edit | None
    asked: Edit | None = None
    taken: Mapping[int, int] = field(default_factory=dict)
    refused: NothingToChange | None = None


def judge(rules: Rules, edit: Edit) -> Verdict:
    """Apply locks, frozen regions and the policy for overlap; where the user is to be asked, others are kept until then."""
    try:
        return Verdict(rules, rules.permit(edit))
    except NothingToChange as error:
        return Verdict(rules, None, refused=error)
    except OverlapFound as found:
        kept = judge(replace(rules, overlap="keep"), edit)
        return Verdict(rules, kept.edit, edit, found.overlaps)


def still_hold(rules: Rules, now: Rules) -> bool:
    """Say whether rules are still what they were when a change was judged."""
    return set(rules.locked) == set(now.locked) and rules.frozen is now.frozen and rules.overlap == now.overlap


def about(before: np.ndarray, after: np.ndarray) -> tuple[int, ...]:
    """Return the structures a stroke is about: those it put down, or else those it erased."""
    changed = before != after
    put = np.unique(after[changed])
    found = put[put != 0] if put.any() else np.unique(before[changed])
    return tuple(int(label) for label in found)


@dataclass(frozen=True, eq=False)
class Moved:
    """A way through the history.

    Attributes
    ----------
    steps
        For the journal on disk.
    box, before, after
        Where the mask changes by all steps together, and its values.
    position, length
        Of the journal now.
    """

    steps: tuple[Entry, ...]
    box: Box
    before: np.ndarray
    after: np.ndarray
    position: int
    length: int


def move(journal: Journal, by: int, labels: np.ndarray, rules: Rules, name_of: Callable[[int], str]) -> Moved | None:
    """Go some steps back or forth in a journal; `None` where there is nothing to do.

    Parameters
    ----------
    journal
        Of the mask.
    by
        How many steps, below 0 to undo.
    labels
        The mask, which is only read.
    rules
        Locks and frozen regions hold here too.
    name_of
        Names a structure.

    Raises
    ------
    BadEdit
        If that would change what is locked; the journal stays where it is then.
    """
    here, length = journal.position, len(journal.timeline)
    steps = journal.jump(min(max(here + by, 0), length))
    if not steps:
        return None
    box = around([step.slices for step in steps])
    before = np.array(labels[box])
    after = before.copy()
    for step in steps:
        place = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(step.slices, box, strict=True))
        after[place] = step.after()
    changed = before != after
    held = np.unique(np.concatenate([before[changed], after[changed]]))
    locked = [name_of(int(label)) for label in held[among(held, rules.locked)]]
    remedy = texts.LOCKED_REMEDY
    if not locked and rules.frozen is not None and (changed & (rules.frozen[box] != 0)).any():
        locked, remedy = [texts.FROZEN], texts.FROZEN_REMEDY
    if locked:
        journal.jump(here)
        raise BadEdit(texts.locked_step(back=by < 0, names=locked), remedy=remedy)
    return Moved(steps, box, before, after, journal.position, length)
