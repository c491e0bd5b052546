"""The released implementation of the Medical Transformer: axial-attention U-Net, gated axial-attention U-Net, LoGo and MedT."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from napari_medt.core import BadWeights
from napari_medt.zoo.forms.form import Form, Shapes

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = re.compile(r"layer(\d)(_p)?\.(\d)\.(.+)")
_STEM = re.compile(r"(conv|bn)([123])(_p)?\.(.+)")
_DECODER = re.compile(r"decoder([12345])(_p)?\.(.+)")
_IN_BLOCK = {
    "conv_down": "reduce",
    "bn1": "reduce_norm",
    "hight_block": "height",
    "width_block": "width",
    "conv_up": "expand",
    "bn2": "expand_norm",
    "downsample.0": "shortcut",
    "downsample.1": "shortcut_norm",
}
_IN_ATTENTION = {
    "qkv_transform": "qkv",
    "bn_qkv": "qkv_norm",
    "bn_similarity": "logits_norm",
    "bn_output": "out_norm",
    "relative": "table",
}
GATES = ("f_qr", "f_kr", "f_sv", "f_sve")
_UNUSED = re.compile(r"adjust_p\.|.*\.flatten_index$|layer\d_p\.\d\.conv1\.|soft(_p)?\.")
SIGNATURE = {"conv1.weight": 4, "adjust.weight": 4, "layer1.0.hight_block.relative": 2}
BGR = "The network was trained on images read as blue, green, red; our engine gives it the channels in that order."


def our_key(key: str, *, two_branches: bool) -> str | None:
    """Our name for a key of the released implementation; `None` if it is unused there, KeyError if it is unknown.

    Gates become `...gates.0` to `...gates.3`, to be stacked.
    """
    if _UNUSED.match(key):
        return None
    if match := _BLOCK.fullmatch(key):
        layer, local, block, rest = match.groups()
        prefix = f"{_branch(local, two_branches)}encoder.layers.{int(layer) - 1}.{block}"
        for theirs, ours in _IN_BLOCK.items():
            if rest.startswith(theirs + "."):
                rest = rest[len(theirs) + 1 :]
                if not theirs.endswith("_block"):
                    return f"{prefix}.{ours}.{rest}"
                if inside := _attention_key(rest):
                    return f"{prefix}.{ours}.{inside}"
        raise KeyError(key)
    if match := _STEM.fullmatch(key):
        kind, number, local, rest = match.groups()
        return f"{_branch(local, two_branches)}encoder.stem.{'norm' if kind == 'bn' else 'conv'}{number}.{rest}"
    if match := _DECODER.fullmatch(key):
        number, local, rest = match.groups()
        index = int(number) - (4 if two_branches and not local else 1)
        if index < 0:
            raise KeyError(key)
        return f"{_branch(local, two_branches)}decoder.convs.{index}.{rest}"
    for theirs, ours in (("decoderf.", "fuse."), ("adjust.", "head.")):
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    raise KeyError(key)


def _branch(local: str | None, two_branches: bool) -> str:
    return "" if not two_branches else "local_" if local else "global_"


def _attention_key(rest: str) -> str | None:
    name, _, leaf = rest.partition(".")
    if name in GATES:
        return f"gates.{GATES.index(name)}"
    return _IN_ATTENTION[name] + (f".{leaf}" if leaf else "") if name in _IN_ATTENTION else None


def recognise(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    """Architecture and options, from keys and shapes; None where it is another form.

    Raises
    ------
    BadWeights
        If its branches do not belong together.
    """
    if any(len(shapes.get(key, ())) != ndim for key, ndim in SIGNATURE.items()):
        return None
    gated = "layer1.0.hight_block.f_qr" in shapes
    options = {
        "img_size": shapes["layer1.0.hight_block.relative"][1] + 1,
        "in_channels": shapes["conv1.weight"][1],
        "num_classes": shapes["adjust.weight"][0],
    }
    if "conv1_p.weight" not in shapes:
        return ("gated-axial-unet" if gated else "axial-unet"), options
    positions = "layer1_p.0.hight_block.relative" in shapes
    if gated == positions:
        raise BadWeights(
            "This checkpoint mixes the branches of LoGo and MedT "
            f"(global branch {'with' if gated else 'without'} gates, local branch {'with' if positions else 'without'} positions)",
            remedy="give a checkpoint of the published LoGo or MedT",
        )
    return ("medt" if gated else "logo"), options


def map_state(state: Mapping[str, Tensor], options: dict[str, Any]) -> dict[str, Tensor]:
    """Rename and reshape a state dict of the released implementation; raises KeyError at the first unknown key."""
    import torch

    two_branches = "conv1_p.weight" in state
    ours: dict[str, Tensor] = {}
    gates: dict[str, dict[int, Tensor]] = {}
    for key, value in state.items():
        name = our_key(key, two_branches=two_branches)
        if name is None:
            continue
        stem, _, leaf = name.rpartition(".")
        if stem.endswith(".gates"):
            if value.numel() != 1:
                raise BadWeights(
                    f"This looks like the Medical Transformer, but its gate {key!r} holds {value.numel()} values, not one",
                    remedy="give an unchanged checkpoint of the released implementation",
                )
            gates.setdefault(stem, {})[int(leaf)] = value.reshape(())
        else:
            ours[name] = value[..., None] if name.endswith(".qkv.weight") else value
    complete = {name: four for name, four in gates.items() if len(four) == len(GATES)}
    ours |= {name: torch.stack([four[i] for i in range(len(GATES))]) for name, four in complete.items()}
    return ours


def _tensor_of(key: str, shapes: Shapes, options: dict[str, Any]) -> str | None:
    name = our_key(key, two_branches="conv1_p.weight" in shapes)
    return name and re.sub(r"\.gates\.\d$", ".gates", name)


FORM = Form(
    name="the Medical Transformer family",
    signature=tuple(SIGNATURE),
    recognise=recognise,
    map_state=map_state,
    our_key=_tensor_of,
    colour="bgr",
    notes=(BGR,),
)
