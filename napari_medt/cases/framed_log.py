"""An append-only file of framed records: what was written whole stays readable, whatever happened after it."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from napari_medt.core import BadCase
from napari_medt.io.atomic import atomic_write, storage_error

MAGIC = b"MEDTLOG1"
Place = tuple[int, int]
_FRAME = struct.Struct("<III")  # length, its complement, CRC-32 of what follows
_ONES = 2**32 - 1


@dataclass(frozen=True)
class Scan:
    """What could be read of a log.

    Attributes
    ----------
    records
        Whole records in order.
    end
        Where the last of them ends in the file.
    damage
        Empty, `"torn"` when the file ends within a record, as after a crash, or `"damaged"` when a record in the
        middle does not agree with its checksum.
    """

    records: tuple[bytes, ...]
    end: int
    damage: str = ""

    def places(self) -> Iterator[Place]:
        """Where the frame of each record lies in the file."""
        at = len(MAGIC)
        for record in self.records:
            stop = at + _FRAME.size + len(record)
            yield at, stop
            at = stop


def scan(path: Path) -> Scan | None:
    """Read all whole records up to the first damage; None when there is no file.

    Raises
    ------
    BadCase
        If the file is something else.
    StorageError
        If it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path, doing="read") from error
    if not data.startswith(MAGIC):
        if MAGIC.startswith(data):  # not even the first bytes had reached the disk
            return Scan((), 0, "torn")
        raise BadCase(f"{path} is not a journal", remedy="move it out of the folder")
    records, at = [], len(MAGIC)
    damage = ""
    while at < len(data):
        if at + _FRAME.size > len(data):
            damage = "torn"
            break
        length, complement, checksum = _FRAME.unpack_from(data, at)
        if length ^ complement != _ONES:
            # After a crash some disks show zeros where bytes had been announced but not written.
            damage = "damaged" if any(data[at:]) else "torn"
            break
        stop = at + _FRAME.size + length
        if stop > len(data):
            damage = "torn"
            break
        record = data[at + _FRAME.size : stop]
        if zlib.crc32(record) != checksum:
            damage = "damaged" if any(data[stop:]) else "torn"
            break
        records.append(record)
        at = stop
    return Scan(tuple(records), at, damage)


def frame(record: bytes) -> bytes:
    """Return a record with its length and checksum in front."""
    if len(record) > _ONES:
        raise BadCase("A change of more than 4 GB cannot be kept in a journal")
    return _FRAME.pack(len(record), len(record) ^ _ONES, zlib.crc32(record)) + record


class FramedLog:
    """The log, open for appending; only one process may hold it.

    Parameters
    ----------
    path
        The file; it must have been made by `FramedLog.start`.
    end
        Where its whole records end; what lies behind is cut off.
    """

    def __init__(self, path: Path, *, end: int) -> None:
        self.path = path
        self._end = end
        self._file: BinaryIO | None = None

    @classmethod
    def start(cls, path: Path, record: bytes, *, keep: Sequence[Place] = ()) -> FramedLog:
        """Put a new log in the place of an old one, in one step.

        Parameters
        ----------
        path
            Of both.
        record
            The first of the new one.
        keep
            Frames of the old log that follow it, by where they lie there.

        Raises
        ------
        StorageError
            If the disk refuses it; the old log is as it was then.
        """
        head = MAGIC + frame(record)

        def write(file: BinaryIO) -> None:
            file.write(head)
            if keep:
                with path.open("rb") as old:
                    for begin, stop in keep:
                        old.seek(begin)
                        file.write(old.read(stop - begin))

        atomic_write(path, write)
        return cls(path, end=len(head) + sum(stop - begin for begin, stop in keep))

    @property
    def end(self) -> int:
        """Where its whole records end."""
        return self._end

    def read(self, place: Place) -> bytes:
        """Return one record.

        Raises
        ------
        StorageError
            If it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(place[0] + _FRAME.size)
                return file.read(place[1] - place[0] - _FRAME.size)
        except OSError as error:
            raise storage_error(error, self.path, doing="read") from error

    def append(self, frames: bytes) -> None:
        """Write frames to the end and force them to disk.

        Raises
        ------
        StorageError
            If the disk refuses them; what was there before stays readable, and they may be given again.
        """
        try:
            file = self._open()
            file.seek(self._end)
            left = memoryview(frames)
            while left:  # a disk about to be full takes a part first
                left = left[file.write(left) :]
            _sync(file.fileno())
        except OSError as error:
            self._cut()
            raise storage_error(error, self.path) from error
        self._end += len(frames)

    def close(self) -> None:
        """Close the file; `append` opens it again."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _open(self) -> BinaryIO:
        if self._file is None:
            # Unbuffered, so that bytes a full disk refused do not come back with the next record.
            self._file = self.path.open("r+b", buffering=0)
            self._file.truncate(self._end)
        return self._file

    def _cut(self) -> None:
        """Take away what was written in part; if that fails too, opening the file again does it."""
        file = self._file
        if file is not None:
            with contextlib.suppress(OSError):
                file.truncate(self._end)
        self.close()


def _sync(handle: int) -> None:
    getattr(os, "fdatasync", os.fsync)(handle)
