"""The released implementation of multi-scale guided attention, class `DAF_stack`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from napari_medt.zoo.forms.form import Form, Shapes

if TYPE_CHECKING:
    from torch import Tensor

_SIGNATURE = (
    "semanticModule_1_1.enc1.encode.0.weight",
    "pam_attention_1_1.attn.3.query_conv.weight",
    "conv_sem_1_1.weight",
)
_STEM = "resnext.layer0.0.weight"
_NEVER_USED = re.compile(r"(conv[67]_[1-4]|attention[1-4]|refine[1-4])\..+")
_STEPS = {"1": "first", "2": "second"}
_STEPS_OF_MIX = {"": "first", "1": "second"}
# Scale 4, the coarsest, comes first with us. Attention and heads are numbered by scale there, the rest from the coarsest on.
_RULES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"resnext\.layer0\.0\.(.+)", lambda m: f"backbone.conv1.{m[1]}"),
    (r"resnext\.layer0\.1\.(.+)", lambda m: f"backbone.bn1.{m[1]}"),
    (r"resnext\.layer1\.1\.(.+)", lambda m: f"backbone.layer1.{m[1]}"),
    (r"resnext\.(layer[234]\..+)", lambda m: f"backbone.{m[1]}"),
    (r"down([1-4])\.(.+)", lambda m: f"down.{4 - int(m[1])}.{m[2]}"),
    (r"fuse1\.fuse_attn\.(.+)", lambda m: f"fuse.{m[1]}"),
    (r"predict([1-4])\.(.+)", lambda m: f"coarse_heads.{4 - int(m[1])}.{m[2]}"),
    (r"predict([1-4])_2\.(.+)", lambda m: f"refined_heads.{4 - int(m[1])}.{m[2]}"),
    (
        r"pam_attention_([12])_([1-4])\.attn\.(.+)",
        lambda m: f"{_STEPS[m[1]]}.position.{4 - int(m[2])}." + re.sub(r"_conv(?=\.)", "", m[3]),
    ),
    (r"cam_attention_([12])_([1-4])\.attn\.(.+)", lambda m: f"{_STEPS[m[1]]}.channel.{4 - int(m[2])}.{m[3]}"),
    (
        r"semanticModule_([12])_1\.(enc|dec)([12])\.(?:en|de)code\.(.+)",
        lambda m: f"{_STEPS[m[1]]}.autoencoder.{m[2]}ode{m[3]}.{m[4]}",
    ),
    (r"conv_sem_([12])_([1-4])\.(.+)", lambda m: f"{_STEPS[m[1]]}.guides.{int(m[2]) - 1}.semantic.{m[3]}"),
    (r"conv8_(1?)([1-4])\.(.+)", lambda m: f"{_STEPS_OF_MIX[m[1]]}.guides.{int(m[2]) - 1}.mix.{m[3]}"),
)


def our_key(key: str) -> str | None:
    """Our name of a tensor; None where the released network never uses it, KeyError where it is unknown."""
    if _NEVER_USED.fullmatch(key):
        return None
    for pattern, rename in _RULES:
        if match := re.fullmatch(pattern, key):
            return rename(match)
    raise KeyError(key)


def recognise(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    """Our name and all options of a state dict of this form: its shapes tell everything."""
    grouped = "resnext.layer1.1.0.conv2.weight"
    if not all(key in shapes for key in (*_SIGNATURE, _STEM, grouped, "predict1.weight")):
        return None
    stem, in_channels = shapes[_STEM][:2]
    inner, group_width = shapes[grouped][:2]
    stages = ("layer1.1", "layer2", "layer3", "layer4")
    numbers = (
        {key.removeprefix(f"resnext.{s}.").partition(".")[0] for key in shapes if key.startswith(f"resnext.{s}.")}
        for s in stages
    )
    num_classes, width = shapes["predict1.weight"][:2]
    return "guided-attention", {
        "in_channels": in_channels,
        "num_classes": num_classes,
        "width": width,
        "stem": stem,
        "blocks": tuple(map(len, numbers)),
        "groups": inner // group_width,
        "base_width": group_width * 64 // stem,
    }


def map_state(state: Mapping[str, Tensor], options: dict[str, Any]) -> dict[str, Tensor]:
    """Rename a state dict of this form; the tensors that never learn are left out.

    Raises
    ------
    KeyError
        At the first key that does not belong to this form.
    """
    named = ((our_key(key), value) for key, value in state.items())
    return {key: value for key, value in named if key is not None}


FORM = Form(
    name="multi-scale guided attention (DAF_stack)",
    signature=_SIGNATURE,
    recognise=recognise,
    map_state=map_state,
    our_key=lambda key, shapes, options: our_key(key),
)
