"""The mask on disk, an ordinary TIFF that also says which changes it contains."""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from napari_medt.core import BadCase, BadImage, Geometry
from napari_medt.core.volume import Array
from napari_medt.io import atomic_write, read_labels
from napari_medt.io.writing import encode_tiff, storable

_END = struct.Struct("<II8s")  # length of the note, CRC-32 of all before, a mark
_MARK = b"MEDTSNAP"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A mask as it was read.

    Attributes
    ----------
    labels
        In the dtype it had in memory.
    sequence
        Number of the last change it contains; None when another program has written the file.
    when
        When the file was written, in seconds since 1970.
    """

    labels: Array
    sequence: int | None
    when: float


def write_snapshot(path: Path, labels: Array, *, sequence: int, geometry: Geometry) -> None:
    """Write a mask whole or not at all; behind the TIFF, where readers do not look, stand number, type and checksum.

    Raises
    ------
    BadImage
        If the values cannot be kept in a TIFF.
    StorageError
        If the disk refuses it; the file before is as it was.
    """
    array = storable(labels, path.name)
    note = json.dumps({"sequence": sequence, "dtype": labels.dtype.str}).encode()

    def encode(file: BinaryIO) -> None:
        encode_tiff(file, array, geometry)
        file.seek(0, os.SEEK_END)
        file.write(note)
        file.flush()
        file.write(_END.pack(len(note), _checksum(file), _MARK))

    atomic_write(path, encode)


def read_snapshot(path: Path) -> Snapshot | None:
    """Read what `write_snapshot` wrote, or a mask another program put there; None when there is no file.

    Raises
    ------
    BadCase
        If the file is damaged.
    """
    try:
        when = path.stat().st_mtime
        note = _read_note(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadCase(f"{path} cannot be read: {error.strerror or error}", remedy="check the folder") from error
    try:
        labels, _ = read_labels(path)
    except BadImage as error:
        raise BadCase(f"The saved mask is damaged ({error.what})", remedy="run the model again") from error
    if note is None:
        return Snapshot(labels, None, when)
    return Snapshot(labels.astype(np.dtype(note["dtype"]), copy=False), int(note["sequence"]), when)


def _read_note(path: Path) -> dict[str, str] | None:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < _END.size:
            return None
        file.seek(size - _END.size)
        length, checksum, mark = _END.unpack(file.read(_END.size))
        if mark != _MARK:
            return None
        if length > size - _END.size or _checksum(file, size - _END.size) != checksum:
            raise BadCase("The saved mask is damaged (its checksum does not agree)", remedy="run the model again")
        file.seek(size - _END.size - length)
        note: dict[str, str] = json.loads(file.read(length))
        return note


def _checksum(file: BinaryIO, size: int | None = None) -> int:
    """CRC-32 of the first `size` bytes, or of all; the file stands at its end, or behind them, afterwards."""
    file.seek(0)
    value, left = 0, size if size is not None else -1
    while left and (block := file.read(2**20 if left < 0 else min(left, 2**20))):
        value = zlib.crc32(block, value)
        left -= len(block) if left > 0 else 0
    return value
