"""The dock in napari: it collects the user's choices, knocks on the doors of the other rooms and shows what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_medt.widgets.dock import ReviewDock

__all__ = ["ReviewDock"]


def __getattr__(name: str) -> Any:
    if name == "ReviewDock":
        from napari_medt.widgets.dock import ReviewDock

        return ReviewDock
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
