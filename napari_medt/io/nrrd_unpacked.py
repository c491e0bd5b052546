"""NRRD packed by bzip2, which ITK does not read: as a copy that is not packed."""

from __future__ import annotations

import bz2
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from napari_medt.io.itk_headers import missing_pixels
from napari_medt.io.picture import check_size

_PART = 2**24


@contextmanager
def unpacked(path: Path, header: Mapping[str, str]) -> Iterator[Path]:
    """Give the path of a file that ITK reads: the file itself, or a copy that lasts as long as the block.

    Parameters
    ----------
    path
        A NRRD.
    header
        Its fields, as `header_of` returns them.

    Raises
    ------
    BadImage
        If the memory would not hold what is packed.
    OSError, EOFError
        If it is damaged.
    """
    beside = header.get("data file", header.get("datafile", ""))
    skips = any(key in header for key in ("line skip", "lineskip", "byte skip", "byteskip"))
    if (
        header.get("encoding", "").lower() not in ("bzip2", "bz2")
        or skips
        or beside.startswith("LIST")
        or "%" in beside
    ):
        yield path
        return
    length = int(header["_length"])
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "unpacked.nrrd")
        with copy.open("wb") as file, path.open("rb") as text:
            for line in text.read(length).splitlines(keepends=True):
                key = line.partition(b":")[0].strip()
                if key == b"encoding":
                    file.write(b"encoding: raw\n")
                elif key not in (b"data file", b"datafile"):
                    file.write(line)
            if beside:
                if not (path.parent / beside).is_file():
                    raise missing_pixels(path, beside)
                with (path.parent / beside).open("rb") as packed:
                    _unpack(packed, file, path.name)
            else:
                text.seek(length)
                _unpack(text, file, path.name)
        yield copy


def _unpack(packed: BinaryIO, file: BinaryIO, name: str) -> None:
    done = 0
    with bz2.open(packed) as stream:
        while part := stream.read(_PART):
            done += file.write(part)
            check_size(name, pixels=done, bytes_needed=2 * done)
