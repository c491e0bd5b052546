"""Running a model: preparation, windows, stitching, memory, devices; and a process of its own to do it in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_medt.engine.running import predict

__all__ = ["predict"]


def __getattr__(name: str) -> Any:
    """`predict` needs torch, which the window's process must not load; so it is loaded when it is asked for."""
    if name == "predict":
        from napari_medt.engine.running import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
