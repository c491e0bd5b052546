"""Checkpoints of other people's implementations, mapped to our networks by their keys and shapes.

Known form: the released implementation of "Medical Transformer" (Valanarasu et al., MICCAI 2021): axial-attention U-Net,
gated axial-attention U-Net, LoGo and MedT, with or without the `module.` prefix of parallel training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_medt.core import BadWeights

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
BGR = "The network was trained on images read as blue, green, red; our engine gives it the channels in that order."


@dataclass(frozen=True)
class ForeignCheckpoint:
    """A foreign checkpoint in our terms.

    Attributes
    ----------
    architecture, net_options
        For `create_net`.
    state_dict
        With our keys, float32.
    channels
        Channel order the network expects: `"bgr"`, `"grey"`, or numbered channels.
    notes
        What a user should know.
    """

    architecture: str
    net_options: dict[str, Any]
    state_dict: dict[str, Tensor]
    channels: Literal["grey", "bgr"] | tuple[str, ...]
    notes: tuple[str, ...]


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
                return f"{prefix}.{ours}.{_attention_key(rest) if theirs.endswith('_block') else rest}"
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


def _attention_key(rest: str) -> str:
    name, _, leaf = rest.partition(".")
    if name in GATES:
        return f"gates.{GATES.index(name)}"
    return _IN_ATTENTION[name] + (f".{leaf}" if leaf else "")


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]]:
    """Architecture and options of a checkpoint of the released implementation, from keys and shapes.

    Raises
    ------
    BadWeights
        If it is not of that form.
    """
    needed = {"conv1.weight": 4, "adjust.weight": 4, "layer1.0.hight_block.relative": 2}
    missing = [key for key, ndim in needed.items() if len(shapes.get(key, ())) != ndim]
    if missing:
        first = next(iter(shapes), "nothing")
        raise BadWeights(
            "This checkpoint is of no known form; the nearest is the Medical Transformer family, "
            f"but the key {missing[0]!r} is missing or of another shape (the file begins with {first!r})",
            remedy="give a checkpoint of axialunet, gatedaxialunet, logo or MedT, or a model folder saved by this plugin",
        )
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


def map_state(state: Mapping[str, Tensor], architecture: str) -> dict[str, Tensor]:
    """Rename and reshape a state dict of the released implementation; raises BadWeights at the first unknown key."""
    import torch

    ours: dict[str, Tensor] = {}
    gates: dict[str, dict[int, Tensor]] = {}
    for key, value in state.items():
        try:
            name = our_key(key, two_branches=architecture in ("logo", "medt"))
        except KeyError:
            raise BadWeights(
                f"This checkpoint looks like {architecture}, but its key {key!r} does not belong to it",
                remedy="give an unchanged checkpoint of the released implementation",
            ) from None
        if name is None:
            continue
        stem, _, leaf = name.rpartition(".")
        if stem.endswith(".gates"):
            if value.numel() != 1:
                raise BadWeights(
                    f"This checkpoint looks like {architecture}, but its gate {key!r} holds {value.numel()} values, not one",
                    remedy="give an unchanged checkpoint of the released implementation",
                )
            gates.setdefault(stem, {})[int(leaf)] = value.reshape(())
        else:
            ours[name] = value[..., None] if name.endswith(".qkv.weight") else value
    complete = {name: four for name, four in gates.items() if len(four) == len(GATES)}
    ours |= {name: torch.stack([four[i] for i in range(len(GATES))]) for name, four in complete.items()}
    return ours


def import_checkpoint(path: str | Path, arch: str | None = None, **net_options: Any) -> ForeignCheckpoint:
    """Read a checkpoint of another implementation.

    Parameters
    ----------
    path
        `.pth`, `.pt` or `.safetensors`: a state dict, or a dictionary that holds one under `state_dict` or `model`.
    arch
        Our name of the architecture, to insist on it.
    **net_options
        What the file cannot tell; must agree with what it does tell.

    Raises
    ------
    BadWeights
        If the file is unsafe, damaged or of no known form.
    """
    from napari_medt.nets import create_net
    from napari_medt.zoo.weights import read_state_dict

    state = read_state_dict(Path(path))
    for inner in ("state_dict", "model", "model_state_dict"):
        if inner in state and isinstance(state[inner], Mapping):
            state = state[inner]
    state = {str(key).removeprefix("module."): value for key, value in state.items()}
    shapes = {key: tuple(value.shape) for key, value in state.items() if hasattr(value, "shape")}
    architecture, options = recognise(shapes)
    if arch is not None and arch != architecture:
        raise BadWeights(f"{Path(path).name} holds {architecture}, not {arch}", remedy="leave the architecture out")
    for name, value in net_options.items():
        if options.get(name, value) != value:
            raise BadWeights(
                f"{Path(path).name} was made with {name}={options[name]}, not {value}", remedy=f"leave {name} out"
            )
    options |= net_options
    mapped = map_state({key: value for key, value in state.items() if key in shapes}, architecture)
    expected = create_net(architecture, **options).state_dict()
    for key, value in expected.items():
        if key not in mapped or mapped[key].shape != value.shape:
            found = f"has shape {tuple(mapped[key].shape)}" if key in mapped else "is missing"
            raise BadWeights(
                f"{Path(path).name} looks like {architecture}, but {key!r} {found} where {tuple(value.shape)} is needed",
                remedy="give an unchanged checkpoint of the released implementation",
            )
    in_channels = options["in_channels"]
    channels: Literal["grey", "bgr"] | tuple[str, ...] = tuple(f"channel {i + 1}" for i in range(in_channels))
    if in_channels in (1, 3):
        channels = "grey" if in_channels == 1 else "bgr"
    return ForeignCheckpoint(
        architecture,
        options,
        {key: value.float() if value.is_floating_point() else value for key, value in mapped.items()},
        channels,
        (BGR,) if in_channels == 3 else (),
    )
