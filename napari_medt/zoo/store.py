"""Where models lie, and how they are found, loaded and kept: bundled ones, the user's own, and other people's checkpoints."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs

from napari_medt.core import BadModel, BadWeights
from napari_medt.zoo.card import Intensity, ModelCard, Score, parse_card, slug

if TYPE_CHECKING:
    from torch import nn

    from napari_medt.zoo.model import Model

CARD, WEIGHTS, SELFTEST = "card.json", "weights.safetensors", "selftest.npz"
HOME_VARIABLE = "NAPARI_MEDT_HOME"


def home() -> Path:
    """Where the user's models and cases lie: the folder NAPARI_MEDT_HOME, or the usual place of this system."""
    return Path(os.environ.get(HOME_VARIABLE) or platformdirs.user_data_dir("napari-medt", appauthor=False))


def models_folder() -> Path:
    """Where the user's own models lie; it may not exist yet."""
    return home() / "models"


def bundled_folder() -> Path:
    """Where the models that came with the plugin lie."""
    return Path(str(files("napari_medt.zoo"))) / "bundled"


def _folders() -> Iterator[Path]:
    yield from sorted(path.parent for path in bundled_folder().glob(f"*/{CARD}"))
    yield from sorted(path.parent for path in models_folder().glob(f"*/v*/{CARD}"))


def read_card(folder: Path) -> ModelCard:
    """The card of a model folder.

    Raises
    ------
    BadModel
        If there is none, or it cannot be used.
    """
    path = folder / CARD
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadModel(f"{folder} is not a model folder: {CARD} cannot be read ({error.strerror})") from error
    return parse_card(text, where=str(path))


def _survey() -> tuple[dict[str, tuple[Path, ModelCard]], list[str]]:
    found: dict[str, tuple[Path, ModelCard]] = {}
    broken = []
    for folder in _folders():
        try:
            card = read_card(folder)
        except BadModel as error:
            broken.append(str(error))
        else:
            found.setdefault(card.key, (folder, card))
    order = sorted(found.values(), key=lambda item: (item[1].name, item[1].version))
    return {card.key: (folder, card) for folder, card in order}, broken


def list_models() -> list[ModelCard]:
    """Cards of all models at hand, bundled and the user's own, by name and version; needs no torch."""
    return [card for _, card in _survey()[0].values()]


def broken_models() -> list[str]:
    """A sentence for each model that was left out of `list_models` because its card cannot be used."""
    return _survey()[1]


def versions(name: str) -> list[ModelCard]:
    """Cards of all versions of a model, oldest first."""
    return [card for card in list_models() if card.name == name]


def find_model(name: str) -> tuple[Path, ModelCard]:
    """Folder and card of `name` (its first version) or `name@version`.

    Raises
    ------
    BadModel
        If there is none; names the nearest.
    """
    found, broken = _survey()
    key = name if "@" in name else f"{name}@1"
    if key in found:
        return found[key]
    for sentence in broken:
        if f"{os.sep}{name.partition('@')[0]}{os.sep}" in sentence:
            raise BadModel(sentence.removesuffix("."))
    near = get_close_matches(name, [*found, *(card.name for _, card in found.values())], n=1)
    there = ", ".join(found) or "none at all"
    raise BadModel(
        f"No model is called {name!r}", remedy=f"did you mean {near[0]!r}" if near else f"there are: {there}"
    )


def load_model(
    name_or_path: str | os.PathLike[str], *, device: str = "auto", arch: str | None = None, **net_options: Any
) -> Model:
    """Load a model, ready to run.

    Parameters
    ----------
    name_or_path
        `"medt-nuclei"`, a stored version such as `"medt-nuclei@3"`, a model folder, or a checkpoint file (`.pth`, `.pt`,
        `.safetensors`) of another implementation.
    device
        `"auto"` takes the fastest; or `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`.
    arch, **net_options
        For checkpoint files: insist on an architecture; what the file cannot tell.

    Raises
    ------
    BadModel, BadWeights
        If there is no such model, or its files are damaged, unsafe or do not belong together.
    DeviceError
        If there is no such device.
    """
    path = Path(name_or_path)
    if path.is_file():
        return _load_checkpoint(path, device, arch, net_options)
    if arch is not None or net_options:
        raise BadModel(
            "Architecture and options are for checkpoint files only", remedy="leave them out for a stored model"
        )
    if path.is_dir():
        return _load(path, read_card(path), device)
    if path.suffix.lower() in (".pth", ".pt", ".safetensors") or len(path.parts) > 1:
        raise BadWeights(f"There is no file or folder {path}", remedy="check the path")
    return _load(*find_model(str(name_or_path)), device)


def _load(folder: Path, card: ModelCard, device: str) -> Model:
    from napari_medt.nets import create_net
    from napari_medt.zoo.weights import digest, parse_state, read_bytes

    data = read_bytes(folder / WEIGHTS)
    if digest(data) != card.sha256:
        raise BadWeights(
            f"The weights of {card.key} are not the ones its card names: their digest differs",
            remedy="install the plugin again"
            if bundled_folder() in folder.parents
            else "restore the model's folder from a copy",
        )
    net = create_net(card.architecture, **card.net_options)
    _fill(net, parse_state(data, where=str(folder / WEIGHTS)), card.key)
    return _ready(card, net, device)


def _load_checkpoint(path: Path, device: str, arch: str | None, net_options: dict[str, Any]) -> Model:
    from napari_medt.nets import create_net
    from napari_medt.zoo.foreign import import_checkpoint

    found = import_checkpoint(path, arch, **net_options)
    count = found.net_options["num_classes"]
    size = found.net_options["img_size"]
    card = ModelCard(
        name=slug(path.stem),
        title=path.stem,
        description=f"Imported from {path.name}.",
        architecture=found.architecture,
        net_options=found.net_options,
        classes=("background", *(f"class {i}" for i in range(1, count))) if count > 1 else ("background", "class 1"),
        channels=found.channels,
        window=(size, size),
        intensity=Intensity(kind="unit"),
        licence="unknown",
        created=now(),
        notes=found.notes,
    )
    net = create_net(found.architecture, **found.net_options)
    _fill(net, found.state_dict, path.name)
    return _ready(card, net, device)


def _fill(net: nn.Module, state: dict[str, Any], what: str) -> None:
    expected = net.state_dict()
    wrong = [k for k, v in expected.items() if k not in state or state[k].shape != v.shape] + [
        k for k in state if k not in expected
    ]
    if wrong:
        raise BadWeights(f"The weights of {what} do not fit its network; the first that differs is {wrong[0]!r}")
    net.load_state_dict(state)


def _ready(card: ModelCard, net: nn.Module, device: str) -> Model:
    from napari_medt.zoo.devices import choose_device
    from napari_medt.zoo.model import Model

    chosen = choose_device(device)
    return Model(card, net.to(chosen).eval(), chosen)


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
        Store floating tensors as float16, half the size.

    Returns
    -------
    ModelCard
        As written.

    Raises
    ------
    BadModel
        If the folder exists.
    StorageError
        If the disk is full or may not be written; nothing is left behind.
    """
    from napari_medt.zoo.weights import write_files

    written, content = _pack(card, net, half)
    try:
        write_files(Path(folder), content)
    except FileExistsError as error:
        raise BadModel(f"There is a model in {folder} already", remedy="choose another folder") from error
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

    Returns
    -------
    Model
        The new version, on the device of `model`.
    """
    from napari_medt.zoo.weights import write_files

    base = model.card
    parent = models_folder() / base.name
    while True:
        taken = [card.version for card in versions(base.name)]
        taken += [int(p.name[1:]) for p in parent.glob("v*") if p.name[1:].isdigit()]
        card = base.model_copy(
            update={
                "version": max(taken, default=1) + 1,
                "base": f"{base.key} {base.sha256}".strip(),
                "created": now(),
                "notes": tuple(notes),
                "scores": tuple(scores),
            }
        )
        written, content = _pack(card, net, half)
        try:
            write_files(parent / f"v{card.version}", content)
        except FileExistsError:
            continue  # another process took this number meanwhile
        return _load(parent / f"v{card.version}", written, str(model.device))


def _pack(card: ModelCard, net: nn.Module, half: bool) -> tuple[ModelCard, dict[str, bytes]]:
    """The card with its digest, and the content of the model's files."""
    from napari_medt.zoo.check import make_selftest
    from napari_medt.zoo.weights import digest, dump_state, parse_state

    weights = dump_state(net.state_dict(), half=half)
    card = card.model_copy(update={"sha256": digest(weights), "created": card.created or now()})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **make_selftest(card, parse_state(weights, where=card.key)))
    return card, {WEIGHTS: weights, CARD: card.model_dump_json(indent=1).encode(), SELFTEST: buffer.getvalue()}
