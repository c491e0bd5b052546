"""Messages between two processes: pickled, with the data of arrays beside the pickle, so that none of it is copied.

Only for processes that trust each other, as a pickle can run code.
"""

from __future__ import annotations

import io
import pickle
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

_HEAD = struct.Struct("<8sQI")  # kind, number of the call, count of parts
_LENGTH = struct.Struct("<Q")
_LARGE = 2**16  # bytes; below this, pickle's own copy is cheaper


@dataclass(frozen=True, eq=False)
class Frame:
    """A message as it came, not unpacked yet, so that one that cannot be unpacked still says which call it belongs to."""

    kind: str
    number: int
    head: memoryview
    buffers: list[memoryview]

    def unpack(self) -> Any:
        """The message; raises whatever unpickling raises."""
        return pickle.loads(self.head, buffers=self.buffers)


def send(stream: BinaryIO, kind: str, number: int, message: Any) -> None:
    """Write one message about call `number`, its kind in at most eight letters; nothing is written where it cannot be pickled.

    Only the operating system's write touches the arrays' data, and it does not hold the interpreter.
    """
    buffers: list[pickle.PickleBuffer] = []
    head = io.BytesIO()
    _Pickler(head, protocol=5, buffer_callback=buffers.append).dump(message)
    parts = [head.getbuffer(), *(buffer.raw() for buffer in buffers)]
    start = _HEAD.pack(kind.encode(), number, len(parts)) + b"".join(_LENGTH.pack(part.nbytes) for part in parts)
    _write(stream, memoryview(start))
    for part in parts:
        _write(stream, part)


def receive(stream: BinaryIO) -> Frame:
    """Read one message; EOFError where the other side has closed."""
    kind, number, count = _HEAD.unpack(_read(stream, _HEAD.size))
    lengths = [_LENGTH.unpack(_read(stream, _LENGTH.size))[0] for _ in range(count)]
    head, *buffers = [_read(stream, length) for length in lengths]
    return Frame(kind.rstrip(b"\0").decode(), number, head, buffers)


class _Pickler(pickle.Pickler):
    """Keeps large views out of the pickle too: pickle would copy them, byte by byte under the interpreter's lock."""

    def reducer_override(self, thing: Any) -> Any:
        if type(thing) is not np.ndarray or thing.nbytes < _LARGE or thing.dtype.hasobject:
            return NotImplemented
        if thing.flags.c_contiguous or thing.flags.f_contiguous:
            return NotImplemented
        order = tuple(int(axis) for axis in np.argsort([-abs(stride) for stride in thing.strides], kind="stable"))
        straight = np.ascontiguousarray(thing.transpose(order))  # no copy where the view only turns axes round
        return np.transpose, (straight, tuple(int(axis) for axis in np.argsort(order)))


def _write(stream: BinaryIO, part: memoryview) -> None:
    done = 0
    while done < part.nbytes:
        done += stream.write(part[done:]) or 0


def _read(stream: BinaryIO, length: int) -> memoryview:
    view, done = np.empty(length, np.uint8).data, 0  # not a bytearray, whose zeros would be written first
    while done < length:
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        done += count
    return view
