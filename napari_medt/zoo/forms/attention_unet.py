"""Attention U-Nets of three other implementations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from napari_medt.zoo.forms.form import STRIDES, Form, Shapes, alone, highest

if TYPE_CHECKING:
    from torch import Tensor

_PARTS = {"W_g": "signal", "W_x": "skip", "psi": "psi"}


# The implementation most people mean ----------------------------------------------------------------------------------

_COMMON = re.compile(
    r"Conv(?P<block>\d)\.conv\.(?P<in_block>[0134])"
    r"|Up(?P<up>\d)\.up\.(?P<in_up>[12])"
    r"|Att(?P<gate>\d)\.(?P<part>W_g|W_x|psi)\.(?P<in_gate>[01])"
    r"|Up_conv(?P<merge>\d)\.conv\.(?P<in_merge>[0134])"
    r"|Conv_1x1"
)


def _recognise_common(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    if any(key not in shapes for key in ("Conv1.conv.0.weight", "Att2.psi.0.weight", "Conv_1x1.weight")):
        return None
    levels = range(1, highest(shapes, r"Conv(\d+)\.") + 1)
    channels = [shapes[f"Conv{level}.conv.0.weight"][0] for level in levels]
    return "attention-unet", _options("additive", shapes["Conv1.conv.0.weight"], shapes["Conv_1x1.weight"], channels)


def _common_key(key: str) -> str:
    place, _, leaf = key.rpartition(".")
    match = _COMMON.fullmatch(place)
    if not match:
        raise KeyError(key)
    found = match.groupdict()
    if found["block"]:
        return f"encoder.{int(found['block']) - 1}.{found['in_block']}.{leaf}"
    if found["up"]:
        return f"ups.{int(found['up']) - 2}.{found['in_up']}.{leaf}"
    if found["gate"]:
        return f"gates.{int(found['gate']) - 2}.{_PARTS[found['part']]}.{found['in_gate']}.{leaf}"
    if found["merge"]:
        return f"merges.{int(found['merge']) - 2}.{found['in_merge']}.{leaf}"
    return f"head.{leaf}"


# MONAI's --------------------------------------------------------------------------------------------------------------

_MONAI = re.compile(
    r"model\.0\.conv\.(?P<first>[01])\.(?P<in_first>conv|adn\.N)"
    r"|model\.1(?P<nest>(?:\.submodule\.1)*)\.(?:"
    r"attention\.(?P<part>W_g|W_x|psi)\.(?P<in_gate>0\.conv|1)"
    r"|upconv\.up\.(?P<in_up>conv|adn\.N)"
    r"|merge\.(?P<in_merge>conv|adn\.A)"
    r"|submodule\.(?:0\.)?conv\.(?P<block>[01])\.(?P<in_block>conv|adn\.N))"
    r"|model\.2\.conv"
)


def _recognise_monai(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    first, head = shapes.get("model.0.conv.0.conv.weight"), shapes.get("model.2.conv.weight")
    if first is None or head is None or "model.1.attention.psi.0.conv.weight" not in shapes:
        return None
    depth = max(key.count("submodule.1") for key in shapes) + 1
    nests = ("model.1" + ".submodule.1" * level for level in range(depth))
    channels = [first[0], *(shapes[f"{nest}.upconv.up.conv.weight"][0] for nest in nests)]
    return "attention-unet", _options("monai", first, head, channels)


def _monai_key(key: str) -> str:
    place, _, leaf = key.rpartition(".")
    match = _MONAI.fullmatch(place)
    if not match:
        raise KeyError(key)
    found = match.groupdict()
    level = (found["nest"] or "").count("submodule")
    if found["first"]:
        return f"encoder.0.{3 * int(found['first']) + (found['in_first'] != 'conv')}.{leaf}"
    if found["part"]:
        return f"gates.{level}.{_PARTS[found['part']]}.{found['in_gate'][0]}.{leaf}"
    if found["in_up"]:
        return f"ups.{level}.{int(found['in_up'] != 'conv')}.{leaf}"
    if found["in_merge"]:
        return f"merges.{level}.{0 if found['in_merge'] == 'conv' else 2}.{leaf}"
    if found["block"]:
        return f"encoder.{level + 1}.{3 * int(found['block']) + (found['in_block'] != 'conv')}.{leaf}"
    return f"head.{leaf}"


# The authors' ---------------------------------------------------------------------------------------------------------

_AUTHORS = re.compile(
    r"(?P<block>conv\d|center)\.conv(?P<conv>[12])\.(?P<in_conv>[01])"
    r"|gating\.conv1\.(?P<in_bridge>[01])"
    r"|attentionblock(?P<gate>\d)\.(?:gate_block_(?P<number>[12])\.)?(?P<in_gate>W\.[01]|theta|phi|psi)"
    r"|attentionblock(?P<combined>\d)\.combine_gates\.(?P<in_combine>[01])"
    r"|up_concat(?P<merge>\d)\.conv\.conv(?P<merge_conv>[12])\.(?P<in_merge>[01])"
    r"|dsv(?P<scale>\d)(?:\.dsv\.0)?"
    r"|final"
)
_BOTTOM = 4  # their networks have five levels


def _recognise_authors(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    if "gating.conv1.0.weight" not in shapes or "final.weight" not in shapes:
        return None
    gates = highest(shapes, r"attentionblock\d\.gate_block_(\d)\.")
    form = ("grid", "single", "multi")[gates]
    channels = [shapes[f"{name}.conv1.0.weight"][0] for name in ("conv1", "conv2", "conv3", "conv4", "center")]
    return "attention-unet", _options(form, shapes["conv1.conv1.0.weight"], shapes["final.weight"], channels)


def _map_authors(state: Mapping[str, Tensor], options: dict[str, Any]) -> dict[str, Tensor]:
    """Kernels turn with the image: theirs are of `(x, y, z)`, ours of `(z, y, x)`."""
    ours = {_authors_key(key): value for key, value in state.items()}
    return {key: value.permute(0, 1, 4, 3, 2).contiguous() if value.ndim == 5 else value for key, value in ours.items()}


def _authors_key(key: str) -> str:
    place, _, leaf = key.rpartition(".")
    match = _AUTHORS.fullmatch(place)
    if not match:
        raise KeyError(key)
    found = match.groupdict()
    if found["block"]:
        level = _BOTTOM if found["block"] == "center" else int(found["block"][-1]) - 1
        return f"encoder.{level}.{3 * (int(found['conv']) - 1) + int(found['in_conv'])}.{leaf}"
    if found["in_bridge"]:
        return f"bridge.{found['in_bridge']}.{leaf}"
    if found["gate"]:
        return (
            f"gates.{int(found['gate']) - 2}.gates.{int(found['number'] or 1) - 1}"
            f".{found['in_gate'].replace('W', 'out')}.{leaf}"
        )
    if found["combined"]:
        return f"gates.{int(found['combined']) - 2}.combine.{found['in_combine']}.{leaf}"
    if found["merge"]:
        place_in_block = 3 * (int(found["merge_conv"]) - 1) + int(found["in_merge"])
        return f"merges.{int(found['merge']) - 1}.{place_in_block}.{leaf}"
    return f"scales.{int(found['scale']) - 1}.{leaf}" if found["scale"] else f"head.{leaf}"


# ----------------------------------------------------------------------------------------------------------------------


def _options(form: str, first: tuple[int, ...], head: tuple[int, ...], channels: list[int]) -> dict[str, Any]:
    return {
        "in_channels": first[1],
        "num_classes": head[0],
        "spatial_dims": len(first) - 2,
        "form": form,
        "channels": tuple(channels),
    }


def _renamed(our_key: Callable[[str], str]) -> Callable[[Mapping[str, Tensor], dict[str, Any]], dict[str, Tensor]]:
    return lambda state, options: {our_key(key): value for key, value in state.items()}


FORMS = (
    Form(
        name="Attention U-Net of LeeJunHyun/Image_Segmentation",
        signature=("Conv1.conv.0.weight", "Att2.psi.0.weight", "Up_conv2.conv.0.weight", "Conv_1x1.weight"),
        recognise=_recognise_common,
        map_state=_renamed(_common_key),
        our_key=alone(_common_key),
        notes=(
            "Its training code scales images to -1..1 and ends in one output, the logit of the foreground before a sigmoid.",
        ),
    ),
    Form(
        name="Attention U-Net of MONAI",
        signature=("model.0.conv.0.conv.weight", "model.1.attention.psi.0.conv.weight", "model.2.conv.weight"),
        recognise=_recognise_monai,
        map_state=_renamed(_monai_key),
        our_key=alone(_monai_key),
        notes=(STRIDES,),
    ),
    Form(
        name="Attention U-Net of ozan-oktay/Attention-Gated-Networks, 3D",
        signature=("gating.conv1.0.weight", "conv1.conv1.0.weight", "center.conv1.0.weight", "final.weight"),
        recognise=_recognise_authors,
        map_state=_map_authors,
        our_key=alone(_authors_key),
        notes=(
            "Its training code reads volumes as (x, y, z); the kernels were turned to (z, y, x).",
            "Give gate_weights='softmax' if it was trained with the mode concatenation_residual.",
        ),
    ),
)
