"""The history of a mask as the window knows it: what the changes are called, and how many of them are in the mask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_medt.widgets import texts

if TYPE_CHECKING:
    from napari_medt.cases import Entry


@dataclass(frozen=True)
class Change:
    """One change as it stands in the list: what to call it, and whether `hand`, `tool`, `model` or `file` made it."""

    title: str
    by: str


@dataclass
class Timeline:
    """All changes in the order they were made; the first `position` of them are in the mask.

    The values before and after lie in the journal, which only the thread for file work asks.
    """

    changes: list[Change] = field(default_factory=list)
    position: int = 0

    @classmethod
    def of(cls, entries: Iterable[Entry], position: int) -> Timeline:
        """Return the timeline of a journal."""
        return cls([Change(entry.title, entry.by) for entry in entries], position)

    def add(self, change: Change) -> None:
        """Take a new change in; what was undone is forgotten."""
        del self.changes[self.position :]
        self.changes.append(change)
        self.position += 1

    def moved(self, position: int, length: int) -> None:
        """Follow the journal to a position; the oldest changes may have been forgotten there to save memory."""
        del self.changes[: len(self.changes) - length]
        self.position = position

    @property
    def undo_name(self) -> str:
        """What undo would take back; empty when there is nothing."""
        return self.changes[self.position - 1].title if self.position else ""

    @property
    def redo_name(self) -> str:
        """What redo would bring back; empty when there is nothing."""
        return self.changes[self.position].title if self.position < len(self.changes) else ""

    @property
    def corrections(self) -> int:
        """Number of changes by hand or by a tool that are in the mask, without those of a mask that was put aside."""
        count = 0
        for change in self.changes[: self.position]:
            count = 0 if change.title == texts.PUT_ASIDE_NAME else count + (change.by in ("hand", "tool"))
        return count
