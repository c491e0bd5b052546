"""What NIfTI has no place for - names of labels and channels, pixels without a unit - kept in its comment extension."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

import numpy as np

from napari_medt.core import BadImage, Geometry

_COMMENT = 6  # NIfTI's code for plain text
_MARK = "napari-medt"


@dataclass(frozen=True)
class Words:
    """What our own files say beside NIfTI's header; `masks` are the labels of each channel, where channels are masks."""

    names: Mapping[int, str] = field(default_factory=dict)
    colours: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    exact: Geometry | None = None
    masks: tuple[tuple[int, ...], ...] = ()

    def geometry(self, nearest: Geometry) -> Geometry:
        """Return the exact geometry where another program has not moved the file since; else the one in the header."""
        exact = self.exact
        if exact is None:
            return nearest
        if nearest.frame == "patient":
            same = np.allclose(exact.to_nifti(), nearest.to_nifti(), rtol=1e-5, atol=1e-3)
        else:
            sizes, others = (np.multiply(one.spacing, one.unit_mm or 1.0) for one in (exact, nearest))
            same = np.allclose(sizes, others[-exact.ndim :], rtol=1e-5, atol=0)
        return exact if same else nearest

    def __bytes__(self) -> bytes:
        said: dict[str, Any] = {}
        if self.names:
            said["names"] = {str(value): name for value, name in self.names.items()}
        if self.colours:
            said["colours"] = {str(value): list(colour) for value, colour in self.colours.items()}
        if self.channels:
            said["channels"] = list(self.channels)
        if self.masks:
            said["masks"] = [list(values) for values in self.masks]
        if self.exact is not None:
            said["geometry"] = {
                "affine": self.exact.affine.tolist(),
                "units": self.exact.units,
                "frame": self.exact.frame,
            }
        return json.dumps({_MARK: said}).encode() if said else b""


def read_words(stream: BinaryIO, end: int, byte_order: str) -> Words:
    """Read the extensions between the header, after which `stream` stands, and the voxels at `end`; others' are left."""
    order: Literal["little", "big"] = "little" if byte_order == "<" else "big"
    if stream.read(4)[:1] in (b"", b"\0"):
        return Words()
    at = stream.tell()
    while at + 8 <= end:
        begin = stream.read(8)
        size, code = (int.from_bytes(begin[i : i + 4], order) for i in (0, 4))
        if len(begin) < 8 or size < 8 or at + size > end:
            break
        text = stream.read(size - 8)
        if code == _COMMENT and _MARK.encode() in text:
            return _parsed(text)
        at += size
    return Words()


def _parsed(text: bytes) -> Words:
    try:
        said = json.loads(text.rstrip(b"\0"))[_MARK]
        place = said.get("geometry")
        return Words(
            {int(value): str(name) for value, name in said.get("names", {}).items()},
            {int(value): (float(r), float(g), float(b)) for value, (r, g, b) in said.get("colours", {}).items()},
            tuple(map(str, said.get("channels", ()))),
            Geometry(np.array(place["affine"], np.float64), place["units"], place["frame"]) if place else None,
            tuple(tuple(map(int, values)) for values in said.get("masks", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, BadImage):
        return Words()  # a stranger's text, or cut: the header alone then speaks
