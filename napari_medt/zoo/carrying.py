"""Models on the move: out of a folder, a single file or a checkpoint; onto the user's shelf, into a folder or a single file."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from napari_medt.core import BadModel, BadWeights, StorageError
from napari_medt.zoo.card import ModelCard, parse_card
from napari_medt.zoo.shelf import (
    CARD,
    SELFTEST,
    SINGLE,
    WEIGHTS,
    is_known,
    locate,
    models_folder,
    taken_versions,
    versions,
)

PARTS = (CARD, WEIGHTS, SELFTEST)
_LARGEST = 2**32  # bytes of one part
_ALWAYS = (2020, 1, 1, 0, 0, 0)  # so that the same model gives the same file


def pack(parts: Mapping[str, bytes]) -> bytes:
    """The content of a single file that holds a model: an archive of its parts, which any program for archives opens."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in PARTS:
            archive.writestr(zipfile.ZipInfo(name, _ALWAYS), parts[name])
    return buffer.getvalue()


def unpack(path: Path) -> dict[str, bytes]:
    """The parts of a model out of a single file.

    Raises
    ------
    BadModel
        If it cannot be read, is damaged, or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sorted(archive.namelist()) != sorted(PARTS) or any(i.file_size > _LARGEST for i in archive.infolist()):
                raise BadModel(f"{path} is not a model in a single file: it does not hold {', '.join(PARTS)} alone")
            return {name: archive.read(name) for name in PARTS}
    except OSError as error:
        raise BadModel(
            f"The model {path} cannot be read: {error.strerror or error}", remedy="check the path"
        ) from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadModel(f"The model {path} is damaged", remedy="get the file again from where it came from") from error


def parts_of(source: str | PathLike[str]) -> tuple[ModelCard, dict[str, bytes]]:
    """Card and content of the files of a model: by name, folder or single file as they are, of a checkpoint as it would be kept.

    Raises
    ------
    BadModel, BadWeights
        If there is no such model, a part of it is missing, or the parts do not belong together.
    """
    from napari_medt.zoo.store import build_net, load_model, model_parts
    from napari_medt.zoo.weights import digest, parse_state

    path = Path(source).expanduser()
    if path.is_file() and not is_known(str(source)) and path.name not in PARTS:
        if path.suffix.lower() != SINGLE:
            model = load_model(path, device="cpu")
            return model_parts(model.card, model.net, half=False)
        parts = unpack(path)
        card = parse_card(parts[CARD], where=f"in {path.name}")
    else:
        folder, card = locate(path.parent if path.name in PARTS else source)
        parts = {name: _read(folder / name) for name in PARTS}
    if digest(parts[WEIGHTS]) != card.sha256:
        raise BadWeights(
            f"The weights of {card.key} are not the ones its card names: their digest differs",
            remedy="get the model again from where it came from",
        )
    build_net(card, parse_state(parts[WEIGHTS], where=card.key), what=card.key)
    return card, parts


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadModel(
            f"The model folder {path.parent} is not whole: {path.name} cannot be read ({error.strerror or error})",
            remedy="restore the folder from a copy",
        ) from error


def add_model(source: str | PathLike[str]) -> ModelCard:
    """Keep a model on the user's own shelf, where it is found by its name.

    Parameters
    ----------
    source
        A model folder, such as `RUN/model` of a training, a single file, or a checkpoint of another implementation.

    Returns
    -------
    ModelCard
        As kept: under the version of the card if that is free, else under the next.

    Raises
    ------
    BadModel, BadWeights
        If it cannot be used, or lies there already.
    StorageError
        If the disk is full or may not be written; nothing is left behind.
    """
    from napari_medt.zoo.store import card_json
    from napari_medt.zoo.weights import write_folder

    card, parts = parts_of(source)
    same = next((kept for kept in versions(card.name) if kept.sha256 == card.sha256), None)
    if same is not None:
        raise BadModel(f"This model is there already, as {same.key}", remedy=f"use it by this name: {same.key}")
    while True:
        taken = taken_versions(card.name)
        kept = card if card.version not in taken else card.model_copy(update={"version": max(taken) + 1})
        content = parts if kept is card else parts | {CARD: card_json(kept)}
        if write_folder(models_folder() / kept.name / f"v{kept.version}", content):
            return kept
        # Another process took this number meanwhile: try the next.


def write_new(target: Path, content: bytes) -> None:
    """Write a file that does not exist yet, whole or not at all.

    Raises
    ------
    StorageError
        If there is such a file, the disk is full or may not be written.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        if target.exists():
            raise StorageError(f"There is a file {target} already", remedy="choose another name")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.rename(target)
    except OSError as error:
        raise StorageError(
            f"{target} could not be written: {error.strerror or error}",
            remedy="free some space or choose another place",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
