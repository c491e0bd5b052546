"""What is known of a foreign form of a network: how to recognise it and how to rename its tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]
STRIDES = "The file does not tell the strides; they are taken to be 2 at every level unless you give others."


def highest(shapes: Shapes, pattern: str) -> int:
    """The largest number in keys that begin like a pattern, in which it is the first group; 0 if there is none."""
    return max((int(match[1]) for key in shapes if (match := re.match(pattern, key))), default=0)


@dataclass(frozen=True)
class Form:
    """One known layout of a state dict.

    Attributes
    ----------
    name
        For people, for example `"UNETR of MONAI"`.
    signature
        Keys that only this form has, by which a damaged or changed file is told to be near to it.
    recognise
        From keys and shapes to our architecture and its options; None or KeyError where it is another form, or a damaged one.
    map_state
        From the foreign state dict and the options to ours, in our shapes; raises KeyError at the first unknown key.
    our_key
        From one foreign key, the whole state dict's keys and shapes, and the options to the tensor of ours that it goes into;
        None if it goes into none, KeyError if it is unknown.
    guessed
        Options that `recognise` cannot know and fills in as published; a user may give others.
    colour
        Order of the three channels of colour images.
    notes
        What a user should know of a model of this form.
    """

    name: str
    signature: tuple[str, ...]
    recognise: Callable[[Shapes], tuple[str, dict[str, Any]] | None]
    map_state: Callable[[Mapping[str, Tensor], dict[str, Any]], dict[str, Tensor]]
    our_key: Callable[[str, Shapes, dict[str, Any]], str | None]
    guessed: tuple[str, ...] = ()
    colour: Literal["rgb", "bgr"] = "rgb"
    notes: tuple[str, ...] = ()


def alone(our_key: Callable[[str], str]) -> Callable[[str, Shapes, dict[str, Any]], str]:
    """For `Form.our_key` of forms in which a key tells everything."""
    return lambda key, shapes, options: our_key(key)
