"""A few large things that were used last, such as models and pictures; what was not used longest makes room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def kept(store: OrderedDict[Any, T], key: Any, make: Callable[[], T], limit: int) -> T:
    """Return what is kept under a key, made now where it is not there; room is made first, so that memory is never exceeded."""
    if key not in store:
        keep_latest(store, limit - 1)
        store[key] = make()
    store.move_to_end(key)
    return store[key]


def keep_latest(store: OrderedDict[Any, Any], limit: int) -> None:
    """Let go of all but the `limit` that were used last."""
    while len(store) > limit:
        store.popitem(last=False)
