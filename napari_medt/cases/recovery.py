"""What a case folder holds: the snapshot, and the changes of the journal that came after it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_medt.cases.entry import Entry
from napari_medt.cases.framed_log import Scan, scan
from napari_medt.cases.snapshot import Snapshot, read_snapshot
from napari_medt.core import BadCase
from napari_medt.core.volume import Array

MASK = "mask.tif"
JOURNAL = "journal.bin"
_KEPT_ASIDE = "journal-damaged.bin"


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
    """

    labels: Array | None
    sequence: int
    when: float
    notes: tuple[str, ...]
    log_end: int | None
    keep_journal: bool = False


def header(base: int, *, blank: bool) -> bytes:
    """Return the first record of a journal: its changes follow number `base`, on a blank mask or on the snapshot."""
    return json.dumps({"version": 1, "base": base, "blank": blank}).encode()


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
    head, entries, found, keep = _journal(folder / JOURNAL, notes)
    log_end = found.end if found is not None and head is not None else None
    base, blank = (int(head["base"]), bool(head["blank"])) if head is not None else (0, True)

    labels = snapshot.labels if snapshot is not None else None
    sequence = base if snapshot is None or snapshot.sequence is None else snapshot.sequence
    when = snapshot.when if snapshot is not None else 0.0
    if snapshot is not None and snapshot.sequence is None:
        notes.append("The saved mask was changed by another program; changes made after it was saved were put on top.")
    later = [(number, entry) for number, entry in entries if number > sequence]
    gap = bool(later) and later[0][0] != sequence + 1
    if gap or (labels is None and later and not blank):
        notes.append("A part of the changes is missing, so only those after it could be brought back.")
    for number, entry in later:
        if labels is None:
            labels = np.zeros(shape, np.dtype(entry.dtype))
        try:
            labels = applied(entry, labels)
        except BadCase as error:
            notes.append(f"{error.what}, so changes after it could not be brought back.")
            keep = True
            break
        sequence, when = number, entry.time
    if labels is None:
        sequence = max(sequence, base)
    return OnDisk(labels, sequence, when, tuple(notes), log_end, keep), gap


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


def _journal(path: Path, notes: list[str]) -> tuple[dict[str, Any] | None, list[tuple[int, Entry]], Scan | None, bool]:
    """Return header, numbered entries, what was scanned, and whether something unreadable must be kept."""
    try:
        found = scan(path)
    except BadCase as error:
        notes.append(str(error))
        return None, [], None, True
    if found is None:
        return None, [], None, False
    keep = found.damage == "damaged"
    entries: list[tuple[int, Entry]] = []
    head: dict[str, Any] | None = None
    try:
        for position, record in enumerate(found.records):
            if position:
                entries.append(Entry.from_bytes(record))
            else:
                head = _header(record)
    except BadCase as error:
        notes.append(str(error))
        keep = True
    if found.damage == "damaged":
        notes.append("The journal of this case is damaged; changes after the damage could not be brought back.")
    return head, entries, found, keep


def _header(record: bytes) -> dict[str, Any]:
    try:
        head: dict[str, Any] = json.loads(record)
        if head["version"] != 1 or int(head["base"]) < 0 or not isinstance(head["blank"], bool):
            raise BadCase("The journal of this case was written by another version of napari-medt")
    except (ValueError, KeyError, TypeError) as error:
        raise BadCase("The journal of this case does not say what it follows") from error
    return head


def sweep(folder: Path) -> None:
    """Remove what a crash left half written."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            os.unlink(path)
