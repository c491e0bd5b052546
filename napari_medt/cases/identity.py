"""Which case an image belongs to, and what its folder says about it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import platformdirs
from pydantic import BaseModel, ConfigDict, Field

from napari_medt.core import BadCase, Volume
from napari_medt.core.volume import Array
from napari_medt.io.atomic import atomic_write, storage_error

WHOLE_BYTES = 4 * 2**30
AT_ONCE = 64 * 2**20
_CARD = "case.json"

Status = Literal["to do", "draft", "accepted", "second look"]


class SignOff(BaseModel):
    """Who decided what on which mask."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Status
    by: str = Field(description="As the person was named.")
    when: str = Field(description="ISO 8601, UTC.")
    mask: str = Field(description="Of the mask decided on, as `mask_digest` gives it.")
    remark: str = ""
    log: str = Field(default="", description="Hash of the log's line that says the same.")


class CaseCard(BaseModel):
    """What `case.json` holds; no folder and nothing of the image's header, because those name patients."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    image: str = Field(description="Name of the image without its folders.")
    digest: str = Field(description="Of the image's values, as `image_digest` gives it.")
    shape: tuple[int, ...] = Field(description="Of the mask: (y, x) or (z, y, x).")
    spacing: tuple[float, ...] = Field(description="Of the mask's axes, in `units`.")
    units: str = "px"
    created: str = Field(description="When the case was opened first, ISO 8601, UTC.")
    status: Status = "draft"
    sign_off: SignOff | None = None


def cases_folder() -> Path:
    """Return the folder of all cases: `cases` below NAPARI_MEDT_HOME, else below the user's data folder."""
    home = os.environ.get("NAPARI_MEDT_HOME") or platformdirs.user_data_dir("napari-medt", appauthor=False)
    return Path(home).expanduser() / "cases"


def image_digest(image: Volume) -> str:
    """Return 32 hexadecimal digits that stand for an image's values, whatever its file is called and however it was read.

    Up to 4 GB all values are hashed (BLAKE2b), part by part; of larger images, such as slides, boxes spread over them. Pixel
    size and names do not count.
    """
    array = image.array
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{array.shape} {array.dtype.newbyteorder('<').str}".encode())
    for part in _planes(array) if array.nbytes <= WHOLE_BYTES else _boxes(array.shape):
        values = np.asarray(array[part])
        digest.update(
            np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
        )
    return digest.hexdigest()


def mask_digest(labels: Array) -> str:
    """Return 32 hexadecimal digits that stand for a mask's shape and values, whatever type of whole numbers holds them."""
    digest = hashlib.blake2b(str(labels.shape).encode(), digest_size=16)
    least = np.result_type(np.min_scalar_type(labels.min(initial=0)), np.min_scalar_type(labels.max(initial=0)))
    kind = np.dtype(np.uint8) if least.kind == "b" else least.newbyteorder("<")
    digest.update(kind.str.encode())
    for plane in labels:
        digest.update(np.ascontiguousarray(plane, dtype=kind).data)
    return digest.hexdigest()


def now() -> str:
    """Return the time as cards and logs write it: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _planes(array: Array) -> Iterator[tuple[slice, ...]]:
    """Every channel in parts along its first axis, in the order in which values lie in memory; lazy images by their chunks."""
    chunks = getattr(array, "chunks", None)
    rows = max(1, AT_ONCE * array.shape[1] * array.shape[0] // max(1, array.nbytes))
    ends = np.cumsum(chunks[1]).tolist() if chunks else [*range(rows, array.shape[1], rows), array.shape[1]]
    for channel in range(array.shape[0]):
        for start, stop in itertools.pairwise((0, *ends)):
            yield slice(channel, channel + 1), slice(start, stop)


def _boxes(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Some dozens of boxes of at most 256 x 256 or 64 x 64 x 64 samples, evenly spread, at multiples of their size."""
    sizes = shape[1:]
    count, size = (8, 256) if len(sizes) == 2 else (4, 64)
    for place in itertools.product(range(count), repeat=len(sizes)):
        starts = [whole * at // (count - 1) // size * size for whole, at in zip(sizes, place, strict=True)]
        box = (slice(min(a, max(0, n - size)), min(a + size, n)) for a, n in zip(starts, sizes, strict=True))
        yield (slice(None), *box)


def describe(image: Volume, digest: str, *, name: str) -> CaseCard:
    """Return the card of a new case."""
    return CaseCard(
        image=Path(name or image.source).name,
        digest=digest,
        shape=image.spatial_shape,
        spacing=image.geometry.spacing,
        units=image.geometry.units,
        created=now(),
    )


def load_card(folder: Path, fresh: CaseCard) -> CaseCard | None:
    """Read `case.json`; None when there is none, or one that is damaged, which is then kept aside.

    Parameters
    ----------
    folder
        Of the case.
    fresh
        What a new card for this image would say.

    Raises
    ------
    BadCase
        If a newer version wrote it, or it is about another image.
    StorageError
        If it cannot be read.
    """
    path = folder / _CARD
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError):
            raise storage_error(error, path, doing="read") from error
        text = ""
    try:
        version = json.loads(text)["schema_version"]
        if isinstance(version, int) and version > 1:
            raise BadCase(f"{path} was written by a newer version of napari-medt", remedy="update napari-medt")
        card = CaseCard.model_validate_json(text)
    except (ValueError, KeyError, TypeError):
        with contextlib.suppress(OSError):
            path.replace(folder / f"{path.stem}-damaged.json")
        return None
    if (card.digest, card.shape) != (fresh.digest, fresh.shape):
        raise BadCase(f"{folder} belongs to another image", remedy="move that folder away")
    return card


def store_card(folder: Path, card: CaseCard) -> None:
    """Write `case.json` whole or not at all.

    Raises
    ------
    StorageError
        If the disk refuses it.
    """
    atomic_write(folder / _CARD, card.model_dump_json(indent=2).encode())
