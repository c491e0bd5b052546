"""What a worklist remembers between sessions: one JSON file, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from napari_medt.cases.identity import Status, cases_folder
from napari_medt.cases.lock import CaseLock
from napari_medt.core import BadCase, StorageError
from napari_medt.io.atomic import atomic_write, storage_error

NAME = "worklist.json"

WORK = "napari-medt"
"""Folder beside the images in which the work is kept."""
_LOCK = "lock"

Order = Literal["name", "uncertainty", "state"]


class Screen(BaseModel):
    """How a case was shown when it was left; what the parts mean is known to who shows it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    layers: tuple[str, ...] = Field(default=(), description="Names of the layers that were shown.")
    camera: dict[str, JsonValue] = Field(default={}, description="Centre, zoom, angles, slice.")
    contrast: dict[str, tuple[float, float]] = Field(default={}, description="Limits by name of the layer.")
    model: str = Field(default="", description="Key of the model that was chosen.")
    step: str = Field(default="", description="The last step of the review.")
    more: dict[str, JsonValue] = Field(default={}, description="Anything else.")


class Doubt(BaseModel):
    """How unsure a model was of a case."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    uncertainty: float = Field(ge=0, description="Of the whole image; larger is more doubtful.")
    model: str
    weights_sha256: str = ""
    when: str = Field(description="ISO 8601, UTC.")


class Known(BaseModel):
    """What is known of one image of a worklist."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: str = Field(description="Path below the folder, with slashes.")
    choose: tuple[str, ...] = ()
    size: int = Field(description="Of all its files, in bytes.")
    changed: int = Field(description="When a file of it was changed last, in ns since 1970.")
    content: str = Field(default="", description="Digest of its files, once it was opened.")
    digest: str = Field(default="", description="Of its values, which names its case; once it was opened.")
    channels: tuple[str, ...] = Field(
        default=(), description="Such digests of its further channels, each a case of its own."
    )
    state: Status = "to do"
    problem: str = Field(default="", description="Why it could not be read.")
    doubt: Doubt | None = None
    screen: Screen | None = None

    @property
    def key(self) -> str:
        """Stands for the image in its worklist as long as it is not moved."""
        return "|".join((self.place, *self.choose))

    @property
    def cases(self) -> tuple[str, ...]:
        """What names its cases: one, or one for each channel that was opened."""
        return (self.digest, *self.channels) if self.digest else ()


class WorklistFile(BaseModel):
    """All of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    order: Order = "name"
    current: str = Field(default="", description="Key of the case that was open last.")
    known: tuple[Known, ...] = ()


def load(folder: Path) -> tuple[WorklistFile, tuple[str, ...]]:
    """Read the file of a folder, and sentences on what of it is damaged; what can be understood is kept.

    Raises
    ------
    BadCase
        If a newer version wrote it.
    StorageError
        If it cannot be read.
    """
    path = folder / NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return WorklistFile(), ()
    except OSError as error:
        raise storage_error(error, path, doing="read") from error
    try:
        values: dict[str, Any] = json.loads(text)
        version, raw = int(values["schema_version"]), list(values["known"])
    except (ValueError, KeyError, TypeError):
        version, values, raw = 1, {}, []
        whole = False
    else:
        whole = True
    if version > 1:
        raise BadCase(f"{path} was written by a newer version of napari-medt", remedy="update napari-medt")
    known = []
    for each in raw:
        found, complete = _known(each)
        known += [] if found is None else [found]
        whole &= complete
    try:
        content = WorklistFile.model_validate({**values, "known": ()})
    except ValidationError:
        content, whole = WorklistFile(), False
    content = content.model_copy(update={"known": tuple(known)})
    if whole:
        return content, ()
    with contextlib.suppress(OSError):
        path.with_stem(f"{path.stem}-damaged").write_bytes(text)
    said = "The notes of this worklist were damaged; masks are safe, but some cases may be shown as to do until opened."
    return content, (said,)


def store(folder: Path, content: WorklistFile) -> None:
    """Write the file.

    Raises
    ------
    StorageError
        If the disk refuses it.
    """
    atomic_write(folder / NAME, content.model_dump_json(indent=1).encode())


def home_of_work(folder: Path, wanted: Path | None) -> tuple[Path, CaseLock | None, tuple[str, ...]]:
    """Where the work is kept, the lock on it where it is free, and what to tell the user of that."""
    beside = wanted or folder / WORK
    short = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    away = cases_folder().parent / "worklists" / f"{folder.name}-{short}"
    if wanted is None and (away / NAME).exists() and not (beside / NAME).exists():
        home, why = away, "was begun there"
    else:
        home, why = beside, ""
        try:
            _make(beside)
        except StorageError as error:
            if wanted is not None:
                raise
            home, why = away, error.what.rpartition(": ")[2]
    said = f"The work on {folder} is kept in {home}, not beside the images: {why}." if why else ""
    _make(home)
    lock = CaseLock(home / _LOCK)
    held = lock.acquire()
    if not held:
        said = (
            f"{said} This folder is open in another window, so the order and what is shown are not kept here.".strip()
        )
    return home, lock if held else None, (said,) if said else ()


def _make(home: Path) -> None:
    """Make a folder and see whether something can be written there.

    Raises
    ------
    StorageError
        If not.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / _LOCK).open("ab"):
            pass
    except OSError as error:
        raise storage_error(error, home) from error


def _known(values: Any) -> tuple[Known | None, bool]:
    """One image, without how it was shown where only that is damaged, and whether nothing was."""
    for left_out in ((), ("screen",), ("screen", "doubt")):
        with contextlib.suppress(ValidationError, AttributeError):
            kept = {name: value for name, value in values.items() if name not in left_out}
            return Known.model_validate(kept), not left_out
    return None, False
