"""The released implementations of FINE and of GLAM in 3D, both in the first version of nnFormer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from napari_medt.zoo.forms.form import Form, Shapes, highest

if TYPE_CHECKING:
    from torch import Tensor

_EMBED = {
    "proj1.conv1": 0,
    "proj1.norm1": 2,
    "proj1.conv2": 3,
    "proj1.norm2": 5,
    "proj2.conv1": 6,
    "proj2.norm1": 8,
    "proj2.conv2": 9,
    "norm": 10,
}
_IN_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.qkv": "attend.qkv",
    "attn.proj": "attend.proj",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
    "gt_attn.qkv": "mixer.attend.qkv",
    "gt_attn.proj": "mixer.attend.proj",
}
_IN_FINE = {"vt_attn.qkv": "mixer.volume.qkv", "vt_attn.proj": "mixer.volume.proj"}
_IN_GLAM = {"norm3": "mixer.norm1", "norm4": "mixer.norm2", "mlp2.fc1": "mixer.mlp.0", "mlp2.fc2": "mixer.mlp.2"}
_OF_STAGE = {"global_token": "token", "volume_token": "volume", "pe": "positions"}
_STAGE = re.compile(r"(model_down|encoder)\.layers\.(\d+)\.(.+)")
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
_TABLE = re.compile(r"blocks\.(\d+)\.attn\.relative_position_bias_table")
_INDEX = re.compile(r"blocks\.\d+\.attn\.relative_position_index")  # computed here
_SHARED = ("model_down.patch_embed.proj1.conv1.weight", "final.0.up.weight", "model_down.layers.0.global_token")
_FINE = ("vt_check", "model_down.layers.0.volume_token", "model_down.layers.0.blocks.0.vt_attn.qkv.weight")
_GLAM = ("model_down.layers.0.blocks.0.norm3.weight", "model_down.layers.0.blocks.0.mlp2.fc1.weight")


def recognise(shapes: Shapes, *, architecture: str) -> tuple[str, dict[str, Any]] | None:
    """Our name and options for a state dict of one of the two, or None."""
    own = _FINE if architecture == "fine" else _GLAM
    if any(key not in shapes for key in (*_SHARED, *own)):
        return None
    stages = highest(shapes, r"model_down\.layers\.(\d+)\.") + 1
    tables = [shapes[f"model_down.layers.{i}.blocks.0.attn.relative_position_bias_table"] for i in range(stages)]
    blocks = [
        {key.split(".")[4] for key in shapes if key.startswith(f"model_down.layers.{i}.blocks.")} for i in range(stages)
    ]
    width, num_classes, *patch = shapes["final.0.up.weight"]
    windows = [(round(rows ** (1 / 3)) + 1) // 2 for rows, _ in tables]
    options: dict[str, Any] = {
        "in_channels": shapes["model_down.patch_embed.proj1.conv1.weight"][1],
        "num_classes": num_classes,
        "width": width,
        "heads": tuple(heads for _, heads in tables),
        "depths": tuple(map(len, blocks)),
        "window": tuple(windows),
        "patch": tuple(patch),
        "window_tokens": shapes["model_down.layers.0.global_token"][0],
        "wiring": "authors",
    }
    if architecture == "fine":
        cells = shapes["vt_check"][0]
        rows = next(side for side in range(round(cells**0.5), 0, -1) if cells % side == 0)
        options["volume_grid"] = (1, rows, cells // rows)
        places = windows[-1] << (stages - 1)  # along each axis, since the deepest stage is a single window
        options["img_size"] = tuple(places * step for step in patch)
    return architecture, options


def map_state(state: Mapping[str, Tensor], options: dict[str, Any], *, architecture: str) -> dict[str, Tensor]:
    """Rename a state dict; what its network computes but never uses is left out.

    Raises
    ------
    KeyError
        At the first key that does not belong to this form.
    """
    stages = len(options["heads"])
    ours = {}
    for key, value in state.items():
        if name := our_key(key, stages=stages, architecture=architecture):
            if name == "cells.visits":
                value = value.flatten()
            elif name.endswith(".positions"):
                value = _of_windows(value, _windows(name, options))
            ours[name] = value
    return ours


def _windows(name: str, options: dict[str, Any]) -> int:
    """How many windows a stage has at the size that was trained on."""
    _, side, place, _ = name.split(".")
    stage = int(place) if side == "encoder" else len(options["heads"]) - 2 - int(place)
    size, window = options["img_size"], options["window"][stage]
    edges = (size,) * 3 if isinstance(size, int) else size
    grid = [-(-edge // (step << stage)) for edge, step in zip(edges, options["patch"], strict=True)]
    return prod(-(-places // min(window, places)) for places in grid)


def _of_windows(positions: Tensor, windows: int) -> Tensor:
    """Those that the windows get of a table which is made for 32 places along each axis: the middle ones."""
    if len(positions) == 1:
        return positions.expand(windows, -1)
    start = len(positions) // 2 - windows // 2
    return positions[max(start, 0) : start + windows]


def our_key(key: str, *, stages: int, architecture: str) -> str | None:
    """Our name of a tensor; None where it plays no part, KeyError where it is unknown."""
    if key == "vt_check" and architecture == "fine":
        return "cells.visits"
    if match := re.fullmatch(r"model_down\.patch_embed\.(.+)\.(weight|bias)", key):
        return f"host.embed.{_EMBED[match[1]]}.{match[2]}" if match[1] in _EMBED else _unknown(key)
    if match := re.fullmatch(r"model_down\.norm(\d)\.(weight|bias)", key):
        return f"host.norms.{match[1]}.{match[2]}"
    if match := re.fullmatch(r"final\.(\d)\.up\.(weight|bias)", key):
        heads = {"0": "head", "1": "halfway"}  # a third is computed and dropped there
        return f"host.{heads[match[1]]}.{match[2]}" if match[1] in heads else None
    if match := _STAGE.fullmatch(key):
        inside, number = match[1] == "model_down", int(match[2])
        place = number if inside else stages - 2 - number
        return _in_stage(key, match[3], "encoder" if inside else "decoder", place, stages, architecture)
    return _unknown(key)


def _in_stage(key: str, rest: str, side: str, place: int, stages: int, architecture: str) -> str | None:
    stage = f"host.{side}.{place}"
    if _INDEX.fullmatch(rest) or (rest == "pe" and architecture == "glam"):
        return None
    if rest in _OF_STAGE and (rest != "volume_token" or architecture == "fine"):
        return f"{stage}.{_OF_STAGE[rest]}"
    if match := _TABLE.fullmatch(rest):
        return f"{stage}.blocks.{match[1]}.attend.relative"
    names = _IN_BLOCK | (_IN_FINE if architecture == "fine" else _IN_GLAM)
    if (match := _BLOCK.fullmatch(rest)) and match[2] in names:
        return f"{stage}.blocks.{match[1]}.{names[match[2]]}.{match[3]}"
    if match := re.fullmatch(r"downsample\.(norm|reduction)\.(weight|bias)", rest):
        name = f"host.downs.{place}.{'norm' if match[1] == 'norm' else 'conv'}.{match[2]}"
        return name if place < stages - 1 else None  # the last one is computed and dropped there
    if match := re.fullmatch(r"Upsample\.(norm|up)\.(weight|bias)", rest):
        return f"host.ups.{place}.{'norm' if match[1] == 'norm' else 'conv'}.{match[2]}"
    return _unknown(key)


def _unknown(key: str) -> str:
    raise KeyError(key)


def _form(architecture: str, name: str, own: tuple[str, ...], guessed: tuple[str, ...], note: str) -> Form:
    recogniser: Callable[[Shapes], tuple[str, dict[str, Any]] | None] = partial(recognise, architecture=architecture)
    return Form(
        name=name,
        signature=(*_SHARED, *own),
        recognise=recogniser,
        map_state=partial(map_state, architecture=architecture),
        our_key=lambda key, shapes, options: our_key(key, stages=len(options["heads"]), architecture=architecture),
        guessed=guessed,
        notes=(
            "It is run as its authors ran it: relative positions of different offsets share a value, since its weights were "
            "trained so." + note,
        ),
    )


FINE = _form(
    "fine",
    "FINE of themyrl/fine, 3D",
    _FINE,
    ("img_size", "volume_grid"),
    " Every prediction marks the cells of the volume that it lies in as seen, and crops beyond the far border count as crops at "
    "the near one. Give img_size= if the crops had not as many patches along every axis, and volume_grid= if the cells of a "
    "volume make no square.",
)
GLAM = _form("glam", "GLAM of themyrl/fine, 3D", _GLAM, (), "")
FORMS = (FINE, GLAM)
