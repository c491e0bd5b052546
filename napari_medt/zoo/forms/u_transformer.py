"""The community code of the U-Transformer, 2D, and the two attention modules of a co-author's code.

No whole network of the authors was released. Their modules, which stand in another host there, can be loaded into ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from napari_medt.zoo.forms.form import Form, Shapes, highest

if TYPE_CHECKING:
    from torch import Tensor

SIGNATURE = (
    "inc.double_conv.0.weight",
    "MHSA.query.weight",
    "up1.MHCA.Sconv.1.weight",
    "up1.MHCA.Yconv2.1.weight",
    "outc.conv.weight",
)
_IN_CROSS = {
    "Sconv.1": "enter.0",
    "Sconv.2": "enter.1",
    "Yconv.0": "reduce.0",
    "Yconv.1": "reduce.1",
    "query": "query",
    "key": "key",
    "value": "value",
    "conv.0": "gate.conv",
    "conv.1": "gate.norm",
    "Yconv2.1": "widen",
    "Yconv2.2": "narrow",
    "Yconv2.3": "narrow_norm",
}
_AUTHORS = {
    "wq": "query",
    "wk": "key",
    "wv": "value",
    "conv_y1.0": "reduce.0",
    "conv_y1.1": "reduce.1",
    "conv_s.0": "enter.0",
    "conv_s.1": "enter.1",
    "sigConv.0": "gate.conv",
    "sigConv.1": "gate.norm",
    "up.1": "widen",
    "conv_y2.0": "narrow",
    "conv_y2.1": "narrow_norm",
}
_ENCODER = re.compile(r"(?:inc|down(\d+)\.maxpool_conv\.1)\.double_conv\.([0134])\.(\w+)")
_SELF = re.compile(r"MHSA\.(query|key|value)\.weight")
_CROSS = re.compile(r"up(\d+)\.MHCA\.(.+)\.(\w+)")
_DECODER = re.compile(r"up(\d+)\.conv\.([0134])\.(\w+)")
_HEAD = re.compile(r"outc\.conv\.(weight|bias)")
_PROJECTION = re.compile(r"(?:MHSA|up\d+\.MHCA)\.(?:query|key|value)\.weight")
_POSITIONS = re.compile(r".*\.inv_freq")  # frequencies of the position codes, computed here


def recognise(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    """Our name and options for a state dict of the community code, or None."""
    if any(key not in shapes for key in SIGNATURE):
        return None
    levels = range(1, highest(shapes, r"down(\d+)\.") + 1)
    blocks = ("inc", *(f"down{level}.maxpool_conv.1" for level in levels))
    channels = [shapes[f"{block}.double_conv.0.weight"][0] for block in blocks]
    return "u-transformer", {
        "in_channels": shapes["inc.double_conv.0.weight"][1],
        "num_classes": shapes["outc.conv.weight"][0],
        "channels": channels,
        "token_strides": [1] * (len(channels) - 1),
        "heads": 1,
        "wiring": "community",
        "over": "queries",
    }


def map_state(state: Mapping[str, Tensor], options: dict[str, Any]) -> dict[str, Tensor]:
    """Our state dict; raises KeyError with the first unknown key."""
    ours = {}
    for key, value in state.items():
        if _POSITIONS.fullmatch(key):
            continue
        name = _our_key(key)
        if _PROJECTION.fullmatch(
            key
        ):  # theirs multiply from the right; ours are linear layers, or convolutions in the skips
            value = value.T if _SELF.fullmatch(key) else value.T[..., None, None]
        ours[name] = value
    return ours


def _our_key(key: str) -> str:
    if match := _ENCODER.fullmatch(key):
        level, place, leaf = match.groups()
        return f"encoder.{level or 0}.{place}.{leaf}"
    if match := _SELF.fullmatch(key):
        return f"self_attention.{match[1]}.weight"
    if match := _CROSS.fullmatch(key):
        step, place, leaf = match.groups()
        if place in _IN_CROSS:
            return f"joins.{int(step) - 1}.{_IN_CROSS[place]}.{leaf}"
    if match := _DECODER.fullmatch(key):
        step, place, leaf = match.groups()
        return f"decoder.{int(step) - 1}.{place}.{leaf}"
    if match := _HEAD.fullmatch(key):
        return f"head.{match[1]}"
    raise KeyError(key)


def map_module(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State of the co-author's self- or cross-attention module for our module in the wiring `"authors"`.

    Raises
    ------
    KeyError
        At the first unknown key.
    """
    ours = {}
    for key, value in state.items():
        place, _, leaf = key.rpartition(".")
        if place not in _AUTHORS:
            raise KeyError(key)
        ours[f"{_AUTHORS[place]}.{leaf}"] = value
    return ours


FORM = Form(
    name="U-Transformer of HXLH50K/U-Net-Transformer, 2D",
    signature=SIGNATURE,
    recognise=recognise,
    map_state=map_state,
    our_key=lambda key, shapes, options: _our_key(key),
    guessed=("heads", "over"),
    notes=(
        "The code this was trained with normalises attention over the queries instead of the keys, has one head, and opens its "
        "gates by a ReLU without upper bound. The weights need that, so it is kept: rows of attention do not sum to one. "
        "Give over='keys' if your code had been corrected.",
    ),
)
