"""Layers that go on to show another case: napari fills one in a fraction of the time that it takes out and makes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


def fits(layer: Any, data: Any, options: Mapping[str, Any]) -> bool:
    """Whether an image layer can show another picture: of as many axes and the same type, both in memory as a whole."""
    shown = layer.data
    return (
        isinstance(shown, np.ndarray)
        and isinstance(data, np.ndarray)
        and bool(layer.rgb) == bool(options.get("rgb"))
        and (shown.ndim, shown.dtype) == (data.ndim, data.dtype)
        and 0 not in data.shape
    )


def fill(layer: Any, data: np.ndarray, options: Mapping[str, Any]) -> None:
    """Show other data in a layer, in another place and under another name, and make it visible.

    Parameters
    ----------
    layer
        An image or a labels layer.
    data
        With as many axes as it has.
    options
        As for making the layer: name, metadata, colormap, contrast limits, and everything that says where it lies. What is
        not among them stays as the user set it.
    """
    layer.metadata = dict(options.get("metadata", {}))
    layer.name = options["name"]
    for name, value in differing(layer, {name: options[name] for name in PLACE if name in options}).items():
        setattr(layer, name, value)
    layer.data = data
    if "contrast_limits" in options:
        layer.contrast_limits_range = options["contrast_limits"]
        layer.contrast_limits = options["contrast_limits"]
    elif hasattr(layer, "contrast_limits") and not layer.rgb:
        layer.reset_contrast_limits_range("data")
        layer.reset_contrast_limits("data")
    for name in ("colormap", "blending"):
        if name in options:
            setattr(layer, name, options[name])
    layer.visible = True


def differing(layer: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """What of a place a layer does not have yet: setting a value again makes napari draw everything anew."""
    return {name: value for name, value in state.items() if not same(getattr(layer, name), value)}


def same(one: Any, other: Any) -> bool:
    """Whether two values of an attribute that says where a layer lies are equal."""
    if hasattr(one, "affine_matrix"):
        return np.array_equal(one.affine_matrix, np.asarray(getattr(other, "affine_matrix", other)))
    try:
        return bool(np.array_equal(np.asarray(one), np.asarray(other)))
    except (TypeError, ValueError):
        return bool(one == other)
