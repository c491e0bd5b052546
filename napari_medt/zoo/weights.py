"""Weight files: written whole or not at all, checked before they are read, never run."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as dump_safetensors
from torch import Tensor

from napari_medt.core import BadWeights, StorageError

AGAIN = "get the file again from where it came from"
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")  # how torch names what a pickle asks for and may not have
_NEW_PICKLES = (b"\x80\x04", b"\x80\x05")  # first bytes of plain Python pickles, which torch does not write


class _LeftOut:
    """Stands for a harmless object that trainers keep beside weights, and takes whatever it would be made of."""

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


# The best score, usually a number of numpy, and the options of the command line: read as nothing, so that no code of theirs runs.
_LEFT_OUT: list[Any] = [
    (_LeftOut, name)
    for name in (
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "argparse.Namespace",
    )
]


def dump_state(state: Mapping[str, Tensor], *, half: bool) -> bytes:
    """A state dict as safetensors; with `half`, each floating tensor as float16 where that loses nothing that matters.

    A tensor is kept as it is where a value would leave the range of float16, or where rounding would move a value by more
    than 2**-10 of the tensor's largest: so it is with tensors of very small values, which float16 holds coarsely.

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
            if half and _survives_half(tensor):
                tensor = tensor.half()
        stored[name] = tensor.clone()
    return dump_safetensors(stored)


def _survives_half(tensor: Tensor) -> bool:
    if not tensor.numel():
        return True
    exact = tensor.double()
    error = (exact - tensor.half().double()).abs().max()  # infinite on overflow
    return bool(error <= exact.abs().max() * 2**-10)


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
    return parse_state_dict(read_bytes(path), where=path.name)


def parse_state_dict(data: bytes, *, where: str) -> dict[str, Any]:
    """As `read_state_dict`, from the content of the file; a name that ends in `.safetensors` says it is of that form."""
    if where.lower().endswith(".safetensors"):
        return dict(parse_state(data, where=where))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: nothing the user can act on
            with torch.serialization.safe_globals(_LEFT_OUT):
                content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        refused = _REFUSED.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if refused or data.startswith(_NEW_PICKLES):
            what = f" ({refused[1]})" if refused else ""
            raise BadWeights(
                f"{where} holds Python code or objects{what} beside weights, which could harm this computer; it was not opened",
                remedy="ask its author for a plain state dict or a safetensors file",
            ) from error
        raise BadWeights(f"{where} is damaged or is not a checkpoint of PyTorch", remedy=AGAIN) from error
    if not isinstance(content, Mapping):
        raise BadWeights(
            f"{where} holds a {type(content).__name__}, not a state dict",
            remedy="save net.state_dict() and give that file",
        )
    unnamed = [key for key in content if not isinstance(key, str)]
    if unnamed:
        raise BadWeights(
            f"{where} is not a state dict: it has an entry {unnamed[0]!r}, where names of weights are wanted",
            remedy="save net.state_dict() and give that file",
        )
    return dict(content)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Write files into a new folder, all or none: into a temporary folder beside it, which is then renamed.

    Returns
    -------
    bool
        False if there was such a folder, perhaps made by another process meanwhile; nothing was changed then.

    Raises
    ------
    StorageError
        If the disk is full or may not be written; nothing is left behind.
    """
    missing = [parent for parent in folder.parents if not parent.exists()]
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, data in files.items():
            with (temporary / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if _taken(folder):
            return False
        temporary.rename(folder)  # fails where another process has made the folder since: it is never empty
        _keep_name(folder.parent)
    except OSError as error:
        if _taken(folder):
            return False
        raise StorageError(
            f"The model could not be written to {folder.parent}: {error.strerror or error}",
            remedy="free some space or choose another folder",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()  # only if it is empty, as after a failure
    return True


def _taken(folder: Path) -> bool:
    return os.path.lexists(folder)


def _keep_name(parent: Path) -> None:
    """Have the folder's new name reach the disk; systems that cannot sync a folder do so on their own."""
    with contextlib.suppress(OSError):
        descriptor = os.open(parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
