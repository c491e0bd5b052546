"""What a case folder holds: the snapshot, and the changes of the journal that came after it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_medt.cases.entry import Entry
from napari_medt.cases.framed_log import Place, Scan, scan
from napari_medt.cases.history import History, Numbered
from napari_medt.cases.snapshot import Snapshot, read_snapshot
from napari_medt.core import BadCase
from napari_medt.core.volume import Array

MASK = "mask.tif"
JOURNAL = "journal.bin"
_KEPT_ASIDE = "journal-damaged.bin"
_SAVED = b'{"saved": '


@dataclass(frozen=True, eq=False)
class OnDisk:
    """A draft as it lies on disk.

    Attributes
    ----------
    labels
        The mask after its last whole change; None when there is no draft.
    sequence
        Number of that change.
    when
        When it was made, in seconds since 1970.
    notes
        Sentences on what was damaged or missing.
    log_end
        Where the journal may be continued; None when a new one must be started.
    keep_journal
        Whether the journal holds something unreadable that must be kept aside before it is continued.
    history
        What can be undone and brought back, with values.
    places
        Where the changes of the history lie in the journal, by their numbers.
    unsaved
        How many changes the snapshot does not contain yet.
    """

    labels: Array | None
    sequence: int
    when: float
    notes: tuple[str, ...]
    log_end: int | None
    keep_journal: bool = False
    history: History = field(default_factory=History)
    places: Mapping[int, Place] = field(default_factory=dict)
    unsaved: int = 0


def header(base: int, *, blank: bool, undone: int = 0, older: bytes = b"") -> bytes:
    """Return the first record of a journal.

    Parameters
    ----------
    base
        Changes of a greater number follow on a blank mask or on the snapshot; others are only history.
    blank
        Which of the two.
    undone
        How many of the history's changes are taken back, the last ones.
    older
        `Corrections.to_bytes` of changes before the history.
    """
    return json.dumps({"version": 2, "base": base, "blank": blank, "undone": undone}).encode() + b"\n" + older


def saved(sequence: int) -> bytes:
    """Return the record that says which change the snapshot contains last, for when another program writes over it."""
    return _SAVED + b"%d}" % sequence


def read_case(folder: Path, shape: tuple[int, ...]) -> OnDisk:
    """Put the mask of a case together.

    Parameters
    ----------
    folder
        Of the case.
    shape
        Of its mask.

    Raises
    ------
    StorageError
        If the journal cannot be read.
    """
    for _ in range(3):  # while another process writes, snapshot and journal may be of two moments
        found, gap = _read_once(folder, shape)
        if not gap:
            break
    return found


def keep_aside(folder: Path) -> None:
    """Keep a copy of a damaged journal, as far as the disk lets us."""
    with contextlib.suppress(OSError):
        shutil.copyfile(folder / JOURNAL, folder / _KEPT_ASIDE)


def _read_once(folder: Path, shape: tuple[int, ...]) -> tuple[OnDisk, bool]:
    notes: list[str] = []
    snapshot = _snapshot(folder / MASK, shape, notes)
    log = _journal(folder / JOURNAL, notes)
    base, keep = log.base, log.keep

    labels = snapshot.labels if snapshot is not None else None
    sequence = base if snapshot is None else log.saved if snapshot.sequence is None else snapshot.sequence
    when = snapshot.when if snapshot is not None else 0.0
    if snapshot is not None and snapshot.sequence is None:
        notes.append("The saved mask was changed by another program; changes made after it was saved were put on top.")
    later = [number for number, _ in log.entries if number > max(sequence, base)]
    gap = bool(later) and later[0] != sequence + 1
    if gap or (labels is None and later and not log.blank):
        notes.append("A part of the changes is missing, so only those after it could be brought back.")
    history = log.history()
    # Else the snapshot is of changes that the journal lacks, or is itself what lacks.
    usable = (not log.entries or log.entries[-1][0] >= sequence) and (snapshot is not None or log.blank)
    unsaved = 0
    for number, entry in log.entries:
        try:
            if number > base:
                change = history.take(number, entry)
            if number > max(sequence, base):
                labels = np.zeros(shape, np.dtype(entry.dtype)) if labels is None else labels
                labels = applied(change, labels)
                sequence, when = number, entry.time
                unsaved += 1
        except BadCase as error:
            notes.append(f"{error.what}, so changes after it could not be brought back.")
            keep = True
            break
    if labels is None:
        sequence = max(sequence, base)
    if notes or not usable:
        history = History()
    end = log.end if usable and not notes else None
    return OnDisk(labels, sequence, when, tuple(notes), end, keep, history, log.places, unsaved), gap


def applied(entry: Entry, labels: Array) -> Array:
    """Write a change into a mask, in place if its type can hold the values; return the mask.

    Raises
    ------
    BadCase
        If it does not fit.
    """
    common = np.promote_types(labels.dtype, np.dtype(entry.dtype))
    if common != labels.dtype and common.kind in "bui":
        labels = labels.astype(common)
    entry.apply(labels)
    return labels


def _snapshot(path: Path, shape: tuple[int, ...], notes: list[str]) -> Snapshot | None:
    try:
        snapshot = read_snapshot(path)
    except BadCase as error:
        notes.append(str(error))
        return None
    if snapshot is not None and snapshot.labels.shape != shape:
        notes.append(f"The saved mask is of shape {snapshot.labels.shape} and not {shape}, so it was left aside.")
        return None
    return snapshot


@dataclass
class _Log:
    """What stands in the journal: changes with their numbers, and what its header says."""

    base: int = 0
    blank: bool = True
    undone: int = 0
    older: bytes = b""
    saved: int = 0
    entries: list[tuple[int, Entry]] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)
    end: int | None = None
    keep: bool = False

    def history(self) -> History:
        """As it was when the journal was begun."""
        kept = [Numbered(number, entry) for number, entry in self.entries if number <= self.base]
        first = len(kept) - self.undone
        return History(kept[:first], kept[first:][::-1], self.older)


def _journal(path: Path, notes: list[str]) -> _Log:
    log = _Log()
    try:
        found = scan(path)
    except BadCase as error:
        notes.append(str(error))
        log.keep = True
        return log
    if found is None:
        return log
    try:
        _read_records(found, log)
    except BadCase as error:
        notes.append(str(error))
        log.keep = True
    if found.damage == "damaged":
        notes.append("The journal of this case is damaged; changes after the damage could not be brought back.")
        log.keep = True
    return log


def _read_records(found: Scan, log: _Log) -> None:
    for position, (record, place) in enumerate(zip(found.records, found.places(), strict=True)):
        if not position:
            _read_header(record, log)
            log.end = found.end
        elif record.startswith(_SAVED):
            log.saved = int(record[len(_SAVED) : -1])
        else:
            number, entry = Entry.from_bytes(record)
            log.entries.append((number, entry))
            log.places[number] = place


def _read_header(record: bytes, log: _Log) -> None:
    text, _, log.older = record.partition(b"\n")
    try:
        head: dict[str, Any] = json.loads(text)
        if head["version"] not in (1, 2) or int(head["base"]) < 0 or not isinstance(head["blank"], bool):
            raise BadCase("The journal of this case was written by another version of napari-medt")
        log.base = log.saved = int(head["base"])
        log.blank, log.undone = head["blank"], int(head.get("undone", 0))
    except (ValueError, KeyError, TypeError) as error:
        raise BadCase("The journal of this case does not say what it follows") from error


def sweep(folder: Path) -> None:
    """Remove what a crash left half written."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            os.unlink(path)
