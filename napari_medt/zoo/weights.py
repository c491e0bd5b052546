"""Weight files: written whole or not at all, checked before they are read, never run."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as dump_safetensors
from torch import Tensor

from napari_medt.core import BadWeights, StorageError

AGAIN = "get the file again from where it came from"


def dump_state(state: Mapping[str, Tensor], *, half: bool) -> bytes:
    """A state dict as safetensors; with `half`, floating tensors as float16 where they fit into it.

    Raises
    ------
    BadWeights
        If a value is not finite.
    """
    stored = {}
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        if tensor.is_floating_point():
            if not torch.isfinite(tensor).all():
                raise BadWeights(
                    f"The weights {name!r} hold NaN or infinity, so they were not saved",
                    remedy="train again with a smaller learning rate",
                )
            rounded = tensor.half()
            if half and torch.isfinite(rounded).all():
                tensor = rounded
        stored[name] = tensor.clone()
    return dump_safetensors(stored)


def parse_state(data: bytes, *, where: str) -> dict[str, Tensor]:
    """A state dict from safetensors, floating tensors in float32."""
    try:
        state = parse_safetensors(data)
    except (SafetensorError, ValueError) as error:
        raise BadWeights(f"The weight file {where} is damaged or is not safetensors", remedy=AGAIN) from error
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def read_bytes(path: Path) -> bytes:
    """A weight file's content.

    Raises
    ------
    BadWeights
        If it is missing, empty or cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadWeights(f"The weight file {path} cannot be read: {error.strerror}", remedy="check the path") from error
    if not data:
        raise BadWeights(f"The weight file {path} is empty", remedy=AGAIN)
    return data


def read_state_dict(path: Path) -> dict[str, Any]:
    """The content of a `.safetensors`, `.pth` or `.pt` file of others, without running any code in it.

    Raises
    ------
    BadWeights
        If the file is damaged, of another kind, or holds code.
    """
    data = read_bytes(path)
    if path.suffix.lower() == ".safetensors":
        return dict(parse_state(data, where=path.name))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and "GLOBAL" in str(error):
            raise BadWeights(
                f"{path.name} holds Python code or objects beside weights, which could harm this computer; it was not opened",
                remedy="ask its author for a plain state dict or a safetensors file",
            ) from error
        raise BadWeights(f"{path.name} is damaged or is not a checkpoint of PyTorch", remedy=AGAIN) from error
    except (RuntimeError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise BadWeights(f"{path.name} is damaged or is not a checkpoint of PyTorch", remedy=AGAIN) from error
    if not isinstance(content, Mapping):
        raise BadWeights(
            f"{path.name} holds a {type(content).__name__}, not a state dict",
            remedy="save net.state_dict() and give that file",
        )
    return dict(content)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a new folder, all or none: into a temporary folder beside it, which is then renamed.

    Raises
    ------
    FileExistsError
        If the folder exists.
    StorageError
        If the disk is full or may not be written.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, data in files.items():
            with (temporary / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            raise FileExistsError(folder)
        temporary.rename(folder)
    except FileExistsError:
        raise
    except OSError as error:
        if folder.exists():
            raise FileExistsError(folder) from error
        raise StorageError(
            f"The model could not be written to {folder.parent}: {error.strerror}",
            remedy="free some space or choose another folder",
        ) from error
    finally:
        if temporary.exists():
            for left in temporary.iterdir():
                left.unlink()
            temporary.rmdir()
