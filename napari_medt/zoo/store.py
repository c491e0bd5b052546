"""Models loaded, ready to run, and kept: stored ones by name or folder, and other people's checkpoints."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medt.core import BadModel, BadWeights, DeviceError
from napari_medt.zoo.card import Intensity, ModelCard, Score, parse_card, slug
from napari_medt.zoo.shelf import (
    CARD,
    SELFTEST,
    SINGLE,
    WEIGHTS,
    bundled_folder,
    find_model,
    is_known,
    models_folder,
    read_card,
    taken_versions,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from napari_medt.zoo.model import Model

CHECKPOINTS = (".pth", ".pt", ".safetensors")
USUAL_WINDOW = {2: 256, 3: 96}  # of a network that takes any size, px or voxels


def load_model(
    name_or_path: str | os.PathLike[str], *, device: str = "auto", arch: str | None = None, **net_options: Any
) -> Model:
    """Load a model, ready to run.

    Parameters
    ----------
    name_or_path
        `"medt-nuclei"`, a stored version such as `"medt-nuclei@3"`, a model folder, a model in a single file (`.medt`), or a
        checkpoint file (`.pth`, `.pt`, `.safetensors`) of another implementation. A folder that is called like a model is
        meant only as `"./medt-nuclei"`.
    device
        `"auto"` takes the fastest; or `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`.
    arch, **net_options
        For checkpoint files: insist on an architecture; what the file cannot tell.

    Raises
    ------
    BadModel, BadWeights
        If there is no such model, or its files are damaged, unsafe or do not belong together.
    DeviceError
        If there is no such device, or it cannot take the network.
    """
    name, path = os.fspath(name_or_path), Path(name_or_path).expanduser()
    known = isinstance(name_or_path, str) and is_known(name)
    if not known and path.name in (CARD, WEIGHTS) and (path.parent / CARD).is_file():
        path = path.parent  # a file out of a model folder stands for the folder
    single = not known and path.is_file() and path.suffix.lower() == SINGLE
    if not known and path.is_file() and not single:
        return _load_checkpoint(path, device, arch, net_options)
    if arch is not None or net_options:
        raise BadModel(
            "Architecture and options are for checkpoint files only", remedy="leave them out for a stored model"
        )
    if single:
        from napari_medt.zoo.carrying import unpack

        parts = unpack(path)
        return load_parts(parse_card(parts[CARD], where=f"in {path.name}"), parts[WEIGHTS], where=path, device=device)
    if known or not name:
        return load_folder(*find_model(name), device=device)
    if path.is_dir():
        return load_folder(path, read_card(path), device=device)
    if path.suffix.lower() in CHECKPOINTS or len(path.parts) > 1:
        raise BadWeights(f"There is no file or folder {path}", remedy="check the path")
    return load_folder(*find_model(name), device=device)


def load_folder(folder: Path, card: ModelCard, *, device: str) -> Model:
    """Load the model of a folder whose card has been read; verifies the digest of its weights before it reads them."""
    from napari_medt.zoo.weights import read_bytes

    return load_parts(card, read_bytes(folder / WEIGHTS), where=folder / WEIGHTS, device=device)


def load_parts(card: ModelCard, weights: bytes, *, where: Path, device: str) -> Model:
    """Load a model from its card and the content of its weight file, which lies at `where`."""
    from napari_medt.zoo.weights import digest, parse_state

    if digest(weights) != card.sha256:
        why = "their digest differs" if card.sha256 else "it names no digest"
        raise BadWeights(
            f"The weights of {card.key} are not the ones its card names: {why}",
            remedy="install the plugin again"
            if bundled_folder() in where.parents
            else "restore the model's folder from a copy",
        )
    return _ready(card, build_net(card, parse_state(weights, where=str(where)), what=card.key), device)


def _load_checkpoint(path: Path, device: str, arch: str | None, net_options: dict[str, Any]) -> Model:
    from napari_medt.zoo.foreign import import_checkpoint
    from napari_medt.zoo.weights import digest, read_bytes

    found = import_checkpoint(path, arch, **net_options)
    count = max(2, found.net_options["num_classes"])  # a single output is a class against the background
    size = found.net_options.get("img_size", USUAL_WINDOW[found.spatial_dims])
    card = ModelCard(
        name=slug(path.stem),
        title=path.stem or path.name,
        description=f"Imported from {path.name}.",
        architecture=found.architecture,
        net_options=found.net_options,
        classes=("background", *(f"class {i}" for i in range(1, count))),
        channels=found.channels,
        spatial_dims=found.spatial_dims,
        window=tuple(size) if isinstance(size, (tuple, list)) else (size,) * found.spatial_dims,
        intensity=Intensity(kind="unit"),
        licence="unknown",
        sha256=digest(read_bytes(path)),
        created=now(),
        notes=found.notes,
    )
    return _ready(card, build_net(card, found.state_dict, what=path.name), device)


def build_net(card: ModelCard, state: dict[str, torch.Tensor], *, what: str) -> nn.Module:
    """The network of a card with these weights, on the processor, in evaluation mode.

    Raises
    ------
    BadModel, BadWeights
        If it cannot be built, or card, network and weights do not fit each other; `what` names them.
    """
    import torch

    from napari_medt.nets import create_net

    try:
        net = create_net(card.architecture, **card.net_options)
    except (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise BadModel(
            f"The network of {what} cannot be built: {card.architecture} does not take the options {card.net_options} "
            f"({error})",
            remedy="restore the card that came with the model",
        ) from error
    for option, wanted in (("num_classes", card.outputs), ("in_channels", card.in_channels)):
        if getattr(net, option, wanted) != wanted:
            raise BadModel(
                f"The card of {what} does not fit its network: it describes {option} {wanted}, "
                f"but the network has {getattr(net, option)}",
                remedy=f"give {option} in net_options, or correct the card",
            )
    expected = net.state_dict()
    wrong = [k for k, v in expected.items() if k not in state or state[k].shape != v.shape]
    wrong += [k for k in state if k not in expected]
    if wrong:
        raise BadWeights(f"The weights of {what} do not fit its network; the first that differs is {wrong[0]!r}")
    broken = [k for k, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if broken:
        raise BadWeights(
            f"The weights of {what} hold NaN or infinity, first in {broken[0]!r}, so it can predict nothing",
            remedy="take an earlier checkpoint of the training",
        )
    net.load_state_dict(state)
    return net.eval()


def _ready(card: ModelCard, net: nn.Module, device: str) -> Model:
    from napari_medt.zoo.devices import choose_device
    from napari_medt.zoo.model import Model

    chosen = choose_device(device)
    try:
        return Model(card, net.to(chosen), chosen)
    except RuntimeError as error:  # out of memory, or a driver that does not fit
        first = str(error).partition("\n")[0].rstrip(".")
        raise DeviceError(
            f"The device {chosen} could not take the model {card.key}: {first}", remedy="choose the device cpu"
        ) from error


def now() -> str:
    """The present time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def save_model(folder: str | os.PathLike[str], card: ModelCard, net: nn.Module, *, half: bool = True) -> ModelCard:
    """Write a model folder: weights, card with their digest, and a test input with its result.

    Parameters
    ----------
    folder
        Must not exist yet: nothing is ever overwritten.
    card
        Its digest and, if empty, its date are filled in.
    half
        Store floating tensors as float16, half the size, except those that float16 cannot hold well.

    Returns
    -------
    ModelCard
        As written.

    Raises
    ------
    BadModel
        If the folder exists, or the network is not the one the card describes.
    StorageError
        If the disk is full or may not be written; nothing is left behind.
    """
    from napari_medt.zoo.weights import write_folder

    place = Path(folder)
    taken = BadModel(f"There is a model in {place} already", remedy="choose another folder")
    if os.path.lexists(place):
        raise taken
    written, parts = model_parts(card, net, half=half)
    if not write_folder(place, parts):
        raise taken
    return written


def save_version(
    model: Model, net: nn.Module, *, notes: Sequence[str] = (), scores: Sequence[Score] = (), half: bool = False
) -> Model:
    """Keep a fine-tuned network as the next version of a model, beside the old ones, never over them.

    Parameters
    ----------
    model
        What it was fine-tuned from.
    net
        The fine-tuned network.
    notes, scores
        For the new card; scores of the old one do not apply any more.
    half
        Store floating tensors as float16; by default the new version gives exactly what the trained network gave.

    Returns
    -------
    Model
        The new version, on the device of `model`.

    Raises
    ------
    BadModel
        If the network is not of the model's architecture, or its weights are not finite.
    StorageError
        If the disk is full or may not be written; nothing is left behind.
    """
    from napari_medt.zoo.weights import write_folder

    base = model.card
    changes = {"base": f"{base.key} {base.sha256}".strip(), "notes": tuple(notes), "scores": tuple(scores)}
    made, parts = model_parts(base.model_copy(update=changes | {"created": now()}), net, half=half)
    parent = models_folder() / base.name
    while True:
        card = made.model_copy(update={"version": max({1, *taken_versions(base.name)}) + 1})
        folder = parent / f"v{card.version}"
        if write_folder(folder, parts | {CARD: card_json(card)}):
            return load_folder(folder, card, device=str(model.device))
        # Another process took this number meanwhile: try the next.


def card_json(card: ModelCard) -> bytes:
    """The content of the file of a card."""
    return card.model_dump_json(indent=1).encode()


def model_parts(card: ModelCard, net: nn.Module, *, half: bool) -> tuple[ModelCard, dict[str, bytes]]:
    """The card with its digest, and the content of the files of its folder."""
    from napari_medt.zoo.check import make_selftest
    from napari_medt.zoo.weights import digest, dump_state, parse_state

    weights = dump_state(net.state_dict(), half=half)
    stored = build_net(card, parse_state(weights, where=card.key), what=card.key)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **make_selftest(card, stored))
    card = card.model_copy(update={"sha256": digest(weights), "created": card.created or now()})
    return card, {CARD: card_json(card), WEIGHTS: weights, SELFTEST: buffer.getvalue()}
