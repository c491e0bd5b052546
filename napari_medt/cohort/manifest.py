"""The record of what is done: one line of JSON for each case, so that a later run knows what it need not do again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from napari_medt.core import StorageError
from napari_medt.io import atomic_write
from napari_medt.io.atomic import storage_error

NAME = "manifest.jsonl"
_PIECE = 2**20


@dataclass(frozen=True)
class Record:
    """What became of a case.

    Attributes
    ----------
    case
        Its name.
    image
        Where it lay, as seen from the folder or table of the cohort.
    image_sha256
        Digest of its content; empty if it could not be read.
    model, model_sha256
        Key of the model and digest of its weights.
    settings
        What the result depends on beside them.
    state
        `"done"` or `"failed"`.
    outputs
        Digest by path below the folder of results.
    reason
        Why it failed.
    notes
        Sentences about the image and the run.
    seconds
        What it took.
    finished
        When, UTC.
    version
        Of this package.
    """

    case: str
    image: str
    image_sha256: str
    model: str
    model_sha256: str
    settings: Mapping[str, Any]
    state: Literal["done", "failed"]
    outputs: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    notes: Sequence[str] = field(default_factory=list)
    seconds: float = 0.0
    finished: str = ""
    version: str = ""

    def is_of(self, image_sha256: str, model_sha256: str, settings: Mapping[str, Any]) -> bool:
        """Whether this is the result for such an image, model and settings."""
        asked = (image_sha256, model_sha256, dict(settings))
        return self.state == "done" and (self.image_sha256, self.model_sha256, dict(self.settings)) == asked


class Manifest:
    """The records of a folder of results, by case; each is on disk when `add` returns.

    A line is added at the end, and a line that a crash cut short counts as never written.

    Parameters
    ----------
    folder
        Of the results; it must exist.

    Raises
    ------
    StorageError
        If the file cannot be read or written, or was not written by this package.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._records = {record.case: record for record in _read(self.path)}
        if self._records or self.path.exists():
            self.tidy()

    def __getitem__(self, case: str) -> Record:
        return self._records[case]

    def get(self, case: str) -> Record | None:
        """The record of a case, if there is one."""
        return self._records.get(case)

    def add(self, record: Record) -> Self:
        """Write down what became of a case; an older record of it counts no more."""
        try:
            with self.path.open("ab") as file:
                file.write(_line(record))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(error, self.path) from error
        self._records[record.case] = record
        return self

    def tidy(self) -> None:
        """Write the file anew, one line for each case."""
        atomic_write(self.path, b"".join(map(_line, self._records.values())))


def _line(record: Record) -> bytes:
    return json.dumps(asdict(record), ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"


def _read(path: Path) -> Iterable[Record]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, path, doing="read") from error
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            yield Record(**json.loads(line.decode("utf-8", "surrogateescape")))
        except (ValueError, TypeError) as error:
            if number == len(lines):  # a crash cut it short
                return
            raise StorageError(
                f"Line {number} of {path} cannot be understood, so it is not known what is done",
                remedy="restore the file from a copy, or remove it to begin anew",
            ) from error


def digest_of(files: Sequence[Path], *, home: Path | None = None) -> str:
    """SHA-256 of one file's content, or of the names below `home` and contents of several.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    if home is None and len(files) == 1:
        return _sha256(files[0])
    whole = hashlib.sha256()
    for file in sorted(files):
        name = os.path.relpath(file, home) if home is not None else file.name
        whole.update(f"{name}\0{_sha256(file)}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def digest_of_output(path: Path) -> str:
    """SHA-256 of a file that was written, or of a folder such as an OME-Zarr; empty if it is not there."""
    if path.is_dir():
        return digest_of([Path(home, name) for home, _, names in os.walk(path) for name in names], home=path)
    return _sha256(path) if path.exists() else ""


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()
