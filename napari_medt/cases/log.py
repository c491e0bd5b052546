"""What was done in a case, one line each; a line holds the hash of the one before, so that a changed line shows.

The chain shows lines that were altered, removed, added or moved. Who rewrites the whole file to its end can forge it: against
that the hash of the last line stands in every exported report, and that of a decision in `case.json` too.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from napari_medt.cases.identity import now
from napari_medt.cases.seen import SlicesSeen
from napari_medt.core import BadCase, StorageError
from napari_medt.io.atomic import storage_error

NAME = "log.jsonl"


@dataclass(frozen=True)
class Line:
    """One thing that was done.

    Attributes
    ----------
    number
        From 1 on.
    time
        ISO 8601, UTC.
    what
        In a word or two: `"opened"`, `"run"`, `"loaded"`, `"edited"`, `"looked"`, `"decided"`, `"no longer accepted"`,
        `"exported"`.
    facts
        What else there is to say, as JSON.
    before
        Hash of the line before, empty for the first.
    hash
        SHA-256 of everything above.
    """

    number: int
    time: str
    what: str
    facts: Mapping[str, Any]
    before: str
    hash: str = ""

    def sealed(self) -> str:
        """Return the hash this line should have."""
        content = {name: value for name, value in asdict(self).items() if name != "hash"}
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


class CaseLog:
    """The log of a case; each line is on disk when `add` returns.

    All methods may be called from any thread.

    Parameters
    ----------
    folder
        Of the case.
    read_only
        Whether another window writes it.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.path = folder / NAME
        self._read_only = read_only
        self._lock = threading.Lock()
        self._last: Line | None = None
        self._end = -1

    def add(self, what: str, **facts: Any) -> Line:
        """Write one line.

        Parameters
        ----------
        what
            In a word or two.
        facts
            As JSON can hold them; names of patients do not belong here.

        Raises
        ------
        StorageError
            If the disk refuses it, which leaves the log as it was.
        BadCase
            If the log is damaged, so that nothing can be added to it.
        """
        with self._lock:
            if self._read_only:
                raise StorageError(f"The log {self.path} is not open for writing", remedy="open the case again")
            if self._end < 0:
                lines, self._end = _read(self.path)
                self._last = lines[-1] if lines else None
            number, before = (self._last.number + 1, self._last.hash) if self._last else (1, "")
            plain = json.loads(json.dumps(facts))  # as it will be read
            line = Line(number, now(), what, plain, before)
            line = Line(**{**asdict(line), "hash": line.sealed()})
            self._write(json.dumps(asdict(line), ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n")
            self._last = line
            return line

    def ran(self, model: str, *, version: str, weights_sha256: str, settings: Mapping[str, Any]) -> Line:
        """Write down that a model was run: its name, its version, the digest of its weights, and how; errors as for `add`."""
        return self.add("run", model=model, version=version, weights_sha256=weights_sha256, settings=dict(settings))

    def loaded(self, file: str) -> Line:
        """Write down that a mask was taken from a file, by the file's name; errors as for `add`."""
        return self.add("loaded", file=file)

    def looked(self, seen: SlicesSeen) -> Line:
        """Write down which slices were looked at; errors as for `add`."""
        return self.add("looked", slices=seen.facts())

    def seen(self, shape: tuple[int, ...]) -> SlicesSeen:
        """Return which slices of an image of a shape were looked at so far, whenever that was; errors as for `lines`."""
        seen = SlicesSeen(shape)
        for line in self.lines():
            if line.what == "looked":
                seen.add(line.facts.get("slices", {}))
        return seen

    def lines(self) -> tuple[Line, ...]:
        """Return all lines; one that a crash cut short counts as never written.

        Raises
        ------
        StorageError
            If the file cannot be read.
        BadCase
            If a line is none.
        """
        return tuple(_read(self.path)[0])

    def verify(self, *, holding: str = "") -> str:
        """Return a sentence on the first line that is not as it was written; empty if all are.

        Parameters
        ----------
        holding
            Hash of a line that must be there, as a report or a sign-off names it.

        Raises
        ------
        StorageError
            If the file cannot be read.
        """
        try:
            lines = self.lines()
        except BadCase as error:
            return str(error)
        before = ""
        for number, line in enumerate(lines, 1):
            if (line.number, line.before, line.hash) != (number, before, line.sealed()):
                return (
                    f"Line {number} of the log was changed after it was written, or one before it was added or removed."
                )
            before = line.hash
        if holding and holding not in (line.hash for line in lines):
            return "The log lacks the line of the decision on this mask, so lines were removed or the log was replaced."
        return ""

    def close(self) -> None:
        """Write nothing any more."""
        with self._lock:
            self._read_only = True

    def _write(self, data: bytes) -> None:
        try:
            with self.path.open("r+b" if self.path.exists() else "w+b", buffering=0) as file:
                file.truncate(self._end)
                file.seek(self._end)
                try:
                    left = memoryview(data)
                    while left:  # a disk about to be full takes a part first
                        left = left[file.write(left) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(self._end)
                    raise
        except OSError as error:
            raise storage_error(error, self.path) from error
        self._end += len(data)


def _read(path: Path) -> tuple[Sequence[Line], int]:
    """All whole lines, and where the last of them ends."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise storage_error(error, path, doing="read") from error
    end = data.rfind(b"\n") + 1
    lines = []
    for number, text in enumerate(data[:end].splitlines(), 1):
        try:
            lines.append(Line(**json.loads(text.decode("utf-8", "surrogateescape"))))
        except (ValueError, TypeError) as error:
            raise BadCase(f"Line {number} of {path} cannot be understood", remedy="restore it from a copy") from error
    return lines, end
