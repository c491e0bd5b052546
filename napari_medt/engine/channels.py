"""Which channels of an image go into a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadImage, Volume
from napari_medt.core.volume import default_channel_names

if TYPE_CHECKING:
    from napari_medt.zoo.card import ModelCard

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
COLOURS = ("red", "green", "blue")
SEQUENCES = {
    **dict.fromkeys(("flair", "t2f", "t2flair", "t2_flair"), "flair"),
    **dict.fromkeys(("t1", "t1n", "t1w"), "t1"),
    **dict.fromkeys(("t1c", "t1ce", "t1gd", "t1post", "t1_post"), "t1c"),
    **dict.fromkeys(("t2", "t2w"), "t2"),
}
"""Names of MR sequences in small letters, and what they mean, as far as data sets call them differently."""


@dataclass(frozen=True)
class Channels:
    """Which channels of an image go into the network, or that their mean does."""

    order: tuple[int, ...]
    mean: bool = False

    def pick(self, array: Array) -> Array:
        """Channels `(c, *spatial)` that the scale is found from and applied to; each is there once."""
        if self.mean:
            wide = np.float64 if array.dtype.itemsize > 4 else np.float32
            with np.errstate(invalid="ignore", over="ignore"):  # infinity is told of and taken out elsewhere
                found: Array = array[list(self.order)].mean(0, keepdims=True, dtype=wide)
            return found
        return array if self._repeats else array[list(self.order)]

    def spread(self, array: Floats) -> Floats:
        """Repeat a grey channel that the network wants more than once."""
        return np.broadcast_to(array, (len(self.order), *array.shape[1:])) if self._repeats else array

    @property
    def _repeats(self) -> bool:
        return not self.mean and set(self.order) == {0}


def fit_channels(volume: Volume, card: ModelCard) -> tuple[Channels, tuple[str, ...]]:
    """Find the channels a card asks for: grey repeated for colour, colour averaged for grey, named channels by name.

    Raises
    ------
    BadImage
        If the image has other channels than the model takes.
    """
    names, count = volume.channel_names, volume.array.shape[0]
    alpha = count == 4 and names[:3] == COLOURS  # transparency says nothing about what is seen
    if isinstance(card.channels, tuple):
        wanted = card.channels
        for plain in (str.casefold, sequence_of):
            place = {plain(name): index for index, name in enumerate(names)}
            if len(place) == count and all(plain(name) in place for name in wanted):
                return Channels(tuple(place[plain(name)] for name in wanted)), ()
        if count == len(wanted):
            taken = "" if names == default_channel_names(count) else _taken_as(card.channels)
            return Channels(tuple(range(count))), (taken,) if taken else ()
    elif count == 1:
        return Channels((0,) * card.in_channels), ()
    elif count == 3 or alpha:
        notes = () if names[:3] == COLOURS else (_taken_as(COLOURS),)
        if card.channels == "grey":
            return Channels((0, 1, 2), mean=True), (*notes, "The colours were averaged to grey.")
        return Channels((2, 1, 0) if card.channels == "bgr" else (0, 1, 2)), notes
    wants = ", ".join(card.channels) if isinstance(card.channels, tuple) else "a grey or colour image"
    has = f"{count} channel{'s' if count > 1 else ''} ({', '.join(names[:6])}{', ...' if count > 6 else ''})"
    raise BadImage(
        f"{card.title} takes {wants}, but this image has {has}",
        remedy="choose the channels the model was trained on, or another model",
    )


def sequence_of(name: str) -> str:
    """A channel's name in small letters; one name for an MR sequence, whichever of its usual names it has."""
    return SEQUENCES.get(name.casefold(), name.casefold())


def _taken_as(names: tuple[str, ...]) -> str:
    return f"The channels were taken, in their order, as {', '.join(names[:-1])} and {names[-1]}."
