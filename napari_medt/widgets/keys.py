"""Keys of the viewer while the dock is open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def bind_keys(viewer: Any, actions: Mapping[str, Callable[[], Any]]) -> Callable[[], None]:
    """Bind keys, but none that somebody else has taken; returns a function that lets go of them."""
    taken = []
    for key, act in actions.items():
        try:
            viewer.bind_key(key, lambda _, act=act: act())
        except ValueError:  # bound already
            continue
        taken.append(key)

    def unbind() -> None:
        for key in taken:
            viewer.bind_key(key, None)

    return unbind
