"""Where models lie and which there are: bundled ones and the user's own. Looks at cards only, never at weights."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

import platformdirs

from napari_medt.core import BadModel
from napari_medt.zoo.card import ModelCard, parse_card

CARD, WEIGHTS, SELFTEST = "card.json", "weights.safetensors", "selftest.npz"
SINGLE = ".medt"  # ending of a file that holds all three
HOME_VARIABLE = "NAPARI_MEDT_HOME"
_PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(@[0-9]+)?")
_VERSION_FOLDER = re.compile(r"v([0-9]+)")


def home() -> Path:
    """Where the user's models and cases lie: the folder NAPARI_MEDT_HOME, or the usual place of this system."""
    return Path(os.environ.get(HOME_VARIABLE) or platformdirs.user_data_dir("napari-medt", appauthor=False))


def models_folder() -> Path:
    """Where the user's own models lie; it may not exist yet."""
    return home() / "models"


def bundled_folder() -> Path:
    """Where the models that came with the plugin lie."""
    return Path(str(files("napari_medt.zoo"))) / "bundled"


def _folders() -> Iterator[tuple[str, Path]]:
    """Name and place of every model folder, the bundled ones first."""
    for path in sorted(bundled_folder().glob(f"*/{CARD}")):
        yield f"{path.parent.name}@1", path.parent
    for path in sorted(models_folder().glob("*/v*")):
        number = _VERSION_FOLDER.fullmatch(path.name)
        if number and path.is_dir():
            yield f"{path.parent.name}@{int(number[1])}", path


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
        raise BadModel(
            f"{folder} is not a model folder: its {CARD} cannot be read ({error.strerror or error})",
            remedy="give a folder that this plugin saved, or restore the card that came with the model",
        ) from error
    return parse_card(text, where=str(path))


def _survey() -> tuple[dict[str, tuple[Path, ModelCard]], list[tuple[str, BadModel]]]:
    """Folder and card by key; and what is wrong with the folders that are left out, by the key their place promises."""
    found: dict[str, tuple[Path, ModelCard]] = {}
    broken: list[tuple[str, BadModel]] = []
    for key, folder in _folders():
        try:
            card = read_card(folder)
            if card.key in found:
                raise BadModel(
                    f"The model in {folder} was left out: another of the same name and version, {card.key}, "
                    f"lies in {found[card.key][0]}",
                    remedy="give one of the two another version in its folder's name and on its card",
                )
        except BadModel as error:
            broken.append((key, error))
        else:
            found[card.key] = (folder, card)
    order = sorted(found.values(), key=lambda item: (item[1].name, item[1].version))
    return {card.key: (folder, card) for folder, card in order}, broken


def list_models() -> list[ModelCard]:
    """Cards of all models at hand, bundled and the user's own, by name and version; needs no torch."""
    return [card for _, card in _survey()[0].values()]


def broken_models() -> list[str]:
    """A sentence for each model that was left out of `list_models` because its card cannot be used."""
    return [str(error) for _, error in _survey()[1]]


def versions(name: str) -> list[ModelCard]:
    """Cards of all versions of a model, oldest first."""
    return [card for card in list_models() if card.name == name]


def taken_versions(name: str) -> set[int]:
    """Numbers no new version of a model may have, those of unreadable folders among them."""
    numbers = (_VERSION_FOLDER.fullmatch(path.name) for path in (models_folder() / name).glob("v*"))
    return {card.version for card in versions(name)} | {int(number[1]) for number in numbers if number}


def has_model(name: str) -> bool:
    """Whether there is a model of this name, with or without `@version`, be it one that cannot be used."""
    found, broken = _survey()
    stem = name.partition("@")[0]
    return any(key.partition("@")[0] == stem for key in [*found, *(key for key, _ in broken)])


def is_known(name: str) -> bool:
    """Whether a text is the name of a model there is, and not a path."""
    return _PLAIN_NAME.fullmatch(name) is not None and has_model(name)


def locate(name_or_folder: str | os.PathLike[str]) -> tuple[Path, ModelCard]:
    """Folder and card of a model by its name, or by its folder.

    Raises
    ------
    BadModel
        If there is none, or its card cannot be used.
    """
    name, path = os.fspath(name_or_folder), Path(name_or_folder).expanduser()
    if path.is_dir() and not is_known(name):
        return path, read_card(path)
    return find_model(name)


def find_model(name: str) -> tuple[Path, ModelCard]:
    """Folder and card of `name@version`; of `name` alone, version 1, or the first if there never was a version 1.

    Raises
    ------
    BadModel
        If there is none, or its card cannot be used; names the nearest, and what there is.
    """
    found, broken = _survey()
    stem, _, number = name.partition("@")
    key = name if number else f"{stem}@1"
    if key in found:
        return found[key]
    for promised, error in broken:
        if promised == key:
            raise error
    siblings = [item for item in found.values() if item[1].name == stem]
    if siblings and not number:
        return siblings[0]  # fine-tuned from a checkpoint file, which is in no folder of ours, so it begins with 2
    if siblings:
        raise BadModel(
            f"The model {stem!r} has no version {number!r}",
            remedy="its versions are " + ", ".join(str(card.version) for _, card in siblings),
        )
    there = ", ".join(found) or "none at all"
    near = get_close_matches(stem.lower(), {card.name for _, card in found.values()}, n=1)
    hint = f"did you mean {near[0]!r}? There are: {there}" if near else f"there are: {there}"
    raise BadModel(f"No model is called {name!r}", remedy=hint)
