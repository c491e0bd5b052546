"""The model's run that a mask began with: what is needed to go on from it in a later session without running again."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from napari_medt.core import BadCase
from napari_medt.core.volume import Array
from napari_medt.io.atomic import atomic_write, storage_error

NAME = "run.zip"
_FACTS, _UNCERTAINTY = "run.json", "uncertainty.npy"
_STEPS = 255


class DoubtfulPlace(BaseModel):
    """A region in which the model was unsure."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    centre: tuple[float, ...] = Field(description="In the world of the picture.")
    size: float = Field(description="In cubic or square units of the picture.")
    share: float = Field(description="Mean uncertainty, 0 to 1.")
    name: str = Field(default="", description="Of the class that most of it has.")


class Fix(BaseModel):
    """What was done about the picture before the model saw it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    values: tuple[float, ...] = ()


class LastRun(BaseModel):
    """Which model was run, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(description="Its key.")
    title: str = Field(description="Its name for people.")
    weights_sha256: str = Field(default="", description="Digest of its weights.")
    classes: tuple[str, ...] = Field(description="Names of the labels, background first.")
    settings: dict[str, JsonValue] = Field(default={}, description="What was asked of the run besides the usual.")
    fixes: tuple[Fix, ...] = ()
    doubtful: tuple[DoubtfulPlace, ...] = Field(default=(), description="Most doubtful first.")


def store(folder: Path, run: LastRun, uncertainty: Array | None) -> None:
    """Write a run in the place of the one before, whole or not at all.

    Parameters
    ----------
    folder
        Of the case.
    run
        What was run.
    uncertainty
        Of the mask's shape, 0 to 1, kept in steps of 1/255; None without one.

    Raises
    ------
    StorageError
        If the disk refuses it.
    """
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(_FACTS, run.model_dump_json())
        if uncertainty is not None:
            with archive.open(_UNCERTAINTY, "w") as file:
                np.lib.format.write_array(file, np.rint(uncertainty * np.float32(_STEPS)).astype(np.uint8))
    atomic_write(folder / NAME, held.getvalue())


def load(folder: Path, shape: tuple[int, ...]) -> tuple[LastRun, Array | None] | None:
    """Read what `store` wrote, the uncertainty as float32; None where nothing was stored.

    Raises
    ------
    BadCase
        If the file is damaged, or of another mask.
    StorageError
        If it cannot be read.
    """
    path = folder / NAME
    try:
        with zipfile.ZipFile(path) as archive:
            run = LastRun.model_validate_json(archive.read(_FACTS))
            if _UNCERTAINTY not in archive.namelist():
                return run, None
            with archive.open(_UNCERTAINTY) as file:
                steps: Array = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path, doing="read") from error
    except (zipfile.BadZipFile, ValidationError, ValueError, KeyError, EOFError) as error:
        raise _damaged(path) from error
    if steps.shape != shape:
        raise _damaged(path)
    return run, steps.astype(np.float32) / np.float32(_STEPS)


def _damaged(path: Path) -> BadCase:
    return BadCase(f"Which model made this mask cannot be read ({path} is damaged)", remedy="choose the model yourself")
