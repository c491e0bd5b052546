"""The undo history as the journal on disk tells it: which changes are in the mask, and which were taken back."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Self

from napari_medt.cases.entry import Entry
from napari_medt.core import BadCase


@dataclass(frozen=True)
class Numbered:
    """A change and its number in the journal."""

    number: int
    entry: Entry


@dataclass
class History:
    """The changes of a mask, followed record by record.

    Attributes
    ----------
    done
        Changes that can be undone, oldest first.
    undone
        Changes that can be brought back, the last undone at the end.
    older
        `Corrections.to_bytes` of what stands in the mask from changes that can no longer be undone.
    """

    done: list[Numbered] = field(default_factory=list)
    undone: list[Numbered] = field(default_factory=list)
    older: bytes = field(default=b"", repr=False)

    def knows(self, entry: Entry) -> bool:
        """Whether a change is a step back or forth whose values the history has already."""
        source = self._source(entry)
        return bool(source) and source[-1].entry.id == entry.id

    def take(self, number: int, entry: Entry) -> Entry:
        """Follow one record; the change it makes to the mask, with its values.

        Raises
        ------
        BadCase
            If it is a step without values that starts from somewhere else.
        """
        known = self.knows(entry)
        if entry.bare and not known:
            raise BadCase(f"The journal of this case lacks the change that {entry.title!r} speaks of")
        self.follow(number, entry)
        if not known:
            return entry
        back = entry.kind == "undo"
        return (self.undone if back else self.done)[-1].entry.step(back=back)

    def follow(self, number: int, entry: Entry) -> None:
        """Take a step if it is one from here, else a new change."""
        if self.knows(entry):
            (self.undone if entry.kind == "undo" else self.done).append(self._source(entry).pop())
        else:
            self.done.append(Numbered(number, entry))
            self.undone.clear()

    def newest(self, sizes: Iterable[tuple[int, int]], room: int) -> tuple[Self, list[Numbered]]:
        """Return the history without its oldest changes, and those.

        Parameters
        ----------
        sizes
            Number of each change with its size in bytes.
        room
            What all may take together, in bytes.
        """
        size = dict(sizes)
        undone = self.undone if sum(size[at.number] for at in self.undone) <= room else []
        room -= sum(size[at.number] for at in undone)
        totals = itertools.accumulate(size[at.number] for at in reversed(self.done))
        kept = sum(1 for _ in itertools.takewhile(lambda total: total <= room, totals))
        first = len(self.done) - kept
        return type(self)(self.done[first:], list(undone), self.older), self.done[:first]

    def bare(self) -> Self:
        """Return the same without the values of the changes."""

        def strip(changes: list[Numbered]) -> list[Numbered]:
            return [replace(at, entry=at.entry.without_values()) for at in changes]

        return type(self)(strip(self.done), strip(self.undone), self.older)

    def _source(self, entry: Entry) -> list[Numbered]:
        return {"undo": self.done, "redo": self.undone}.get(entry.kind, [])
