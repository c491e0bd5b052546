"""Checkpoints: written whole or not at all, and read with a sentence where they are damaged."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from napari_medt.core import BadTrainingData
from napari_medt.io import atomic_write


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    whole = io.BytesIO()  # torch hides what a disk that is full has said
    torch.save(state, whole)
    atomic_write(path, whole.getvalue())


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint.

    Raises
    ------
    BadTrainingData
        If it is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise BadTrainingData(
            f"The checkpoint {path} is damaged", remedy="remove its folder, or choose another, and begin anew"
        ) from error
    return state
