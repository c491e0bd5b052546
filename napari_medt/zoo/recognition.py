"""Of which known form a state dict is, and if it is of none or damaged, which is nearest and where the two first differ."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from napari_medt.core import BadWeights
from napari_medt.zoo.forms import FORMS, Form, Shapes

if TYPE_CHECKING:
    from torch import Tensor

REMEDY = "give an unchanged checkpoint of the released implementation, or a model folder saved by this plugin"
ODD_SHAPE = (IndexError, ValueError, TypeError, ArithmeticError)  # what reading a size from such a shape may raise
MAPPING_FAILS = (*ODD_SHAPE, RuntimeError)


def recognise(shapes: Shapes, arch: str | None = None) -> tuple[Form, str, dict[str, Any]]:
    """The form of a state dict, our architecture and its options.

    Raises
    ------
    BadWeights
        If it is of no known form; names the nearest form and the first of its keys that is missing or differs.
    """
    found = [(form, *match) for form in FORMS if (match := _match(form, shapes)) is not None]
    wanted = [one for one in found if arch in (None, one[1])]
    if wanted:
        return wanted[0]
    if found:
        raise BadWeights(f"The checkpoint holds {found[0][1]}, not {arch}", remedy="leave the architecture out")
    nearest = max(FORMS, key=lambda form: _nearness(form, shapes))
    raise BadWeights(
        f"This checkpoint is of no known form; the nearest is {nearest.name}, but {_obstacle(nearest, shapes)} "
        f"(the file begins with {next(iter(shapes), 'nothing')!r})",
        remedy=REMEDY,
    )


def _match(form: Form, shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    with contextlib.suppress(KeyError, *ODD_SHAPE):
        return form.recognise(shapes)
    return None


def _obstacle(form: Form, shapes: Shapes) -> str:
    """Why a state dict near to a form is not of it."""
    for key in form.signature:
        if key not in shapes:
            return f"the key {key!r} is missing"
    watched = _Watched(shapes)
    try:
        form.recognise(watched)
    except KeyError as error:
        return f"the key {error.args[0]!r} is missing"
    except ODD_SHAPE:
        pass  # at the last shape it looked at, or one before
    return f"the key {watched.last!r} or another is of an unknown shape"


class _Watched(dict[str, tuple[int, ...]]):
    """Shapes that know which was asked for last."""

    last = ""

    def __getitem__(self, key: str) -> tuple[int, ...]:
        self.last = key
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.last = key
        return super().get(key, default)


def _nearness(form: Form, shapes: Shapes) -> tuple[float, float]:
    """Share of the signature that is there, and of the words in it that occur anywhere."""
    words = {word for key in shapes for word in key.split(".")}
    wanted = [word for key in form.signature for word in key.split(".") if not word.isdigit()]
    return (
        sum(key in shapes for key in form.signature) / len(form.signature),
        sum(word in words for word in wanted) / len(wanted),
    )


def promise(shapes: Shapes) -> tuple[bool, tuple[float, float]]:
    """How near a state dict is to any form."""
    return any(_match(form, shapes) for form in FORMS), max(_nearness(form, shapes) for form in FORMS)


def first_difference(
    form: Form, shapes: Shapes, options: dict[str, Any], mapped: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> str | None:
    """What is wrong with the first tensor that the network lacks, has too much, or cannot take; None if nothing is."""
    for name, value in expected.items():
        if name not in mapped:
            return f"{_missing_key(form, shapes, options, name)!r} is missing"
        if mapped[name].shape != value.shape:
            theirs = next(key for key in shapes if _ours(form, key, shapes, options) == name)
            return f"{theirs!r} has shape {tuple(mapped[name].shape)} where {tuple(value.shape)} is needed"
    extra = (key for key in shapes if _ours(form, key, shapes, options) in mapped.keys() - expected.keys())
    return next((f"{key!r} has no place in it" for key in extra), None)


def odd_key(form: Form, state: Mapping[str, Tensor], options: dict[str, Any]) -> str:
    """The first key whose tensor cannot be brought into our shape; call it if one cannot."""
    for key, value in state.items():
        try:
            form.map_state({key: value}, options)
        except MAPPING_FAILS:
            return key
        except (KeyError, BadWeights):
            pass  # not by itself
    return next(iter(state))


def _missing_key(form: Form, shapes: Shapes, options: dict[str, Any], name: str) -> str:
    """The foreign key of one of our tensors, found as a key that is there with another number or last word; or our own."""
    numbers = {word for key in (*shapes, name) for word in re.findall(r"\d+", key)}
    leaves = {key.rpartition(".")[2] for key in shapes}
    if _ours(form, itself := name.partition(".")[2], shapes, options) == name:
        return itself  # kept under its own keys
    for key in shapes:
        guesses = [f"{key.rpartition('.')[0]}.{leaf}" for leaf in leaves]
        guesses += [key[: m.start()] + n + key[m.end() :] for m in re.finditer(r"\d+", key) for n in numbers]
        for guess in guesses:
            if guess not in shapes and _ours(form, guess, shapes, options) == name:
                return guess
    return name


def _ours(form: Form, key: str, shapes: Shapes, options: dict[str, Any]) -> str | None:
    with contextlib.suppress(KeyError):
        return form.our_key(key, shapes, options)
    return None
