"""Which structures are locked and which regions are frozen, kept with the case."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_medt.core import BadCase
from napari_medt.core.volume import Array
from napari_medt.io.atomic import atomic_write, storage_error

_NAME = "protection.npz"


@dataclass(frozen=True, eq=False)
class Protection:
    """What must not be changed.

    Attributes
    ----------
    locked
        Values of structures in the mask.
    frozen
        True where a region was reviewed, of the mask's shape; None where nothing is frozen.
    """

    locked: tuple[int, ...] = ()
    frozen: Array | None = None

    def joined(self, other: Protection) -> Protection:
        """Return what either protects; both of one mask."""
        regions = [each.frozen for each in (self, other) if each.frozen is not None]
        frozen = np.logical_or.reduce(regions) if regions else None
        return Protection(tuple(sorted({*self.locked, *other.locked})), frozen)


def store(folder: Path, kept: Protection, shape: tuple[int, ...]) -> None:
    """Write locks and frozen regions whole or not at all.

    Raises
    ------
    BadCase
        If the regions are of another shape than the mask.
    StorageError
        If the disk refuses it.
    """
    frozen = np.zeros(0, bool) if kept.frozen is None else np.asarray(kept.frozen, bool)
    if kept.frozen is not None and frozen.shape != shape:
        raise BadCase(f"Frozen regions of shape {frozen.shape} do not belong to a mask of shape {shape}")
    held = io.BytesIO()
    np.savez_compressed(held, locked=np.array(kept.locked, np.int64), frozen=np.packbits(frozen))
    atomic_write(folder / _NAME, held.getvalue())


def load(folder: Path, shape: tuple[int, ...]) -> Protection:
    """Read what `store` wrote; nothing is protected where nothing was stored.

    Raises
    ------
    BadCase
        If the file is damaged.
    StorageError
        If it cannot be read.
    """
    path = folder / _NAME
    try:
        with np.load(path, allow_pickle=False) as file:
            locked, packed = tuple(int(value) for value in file["locked"]), file["frozen"]
        if not packed.size:
            return Protection(locked)
        size = int(np.prod(shape))
        return Protection(locked, np.unpackbits(packed)[:size].reshape(shape).astype(bool))
    except FileNotFoundError:
        return Protection()
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadCase(
            f"Which structures are locked cannot be read ({path} is damaged)", remedy="set the locks anew"
        ) from error
    except OSError as error:
        raise storage_error(error, path, doing="read") from error
