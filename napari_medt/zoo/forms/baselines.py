"""The baselines that MONAI itself runs, under its own keys: U-Net, V-Net, Swin UNETR and SegResNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_medt.zoo.forms.form import STRIDES, Form, Shapes, alone, highest

if TYPE_CHECKING:
    from torch import Tensor

UNTOLD = "The file tells nothing of layers without weights; they are taken to be as MONAI makes them by default."


def _recognise_unet(shapes: Shapes, *, residual: bool) -> tuple[str, dict[str, Any]] | None:
    units = highest(shapes, r"model\.0\.conv\.unit(\d+)\.conv\.weight") + 1 if residual else 0
    entry, leave = ("conv.unit0.conv", "2.0.conv") if residual else ("conv", "2.conv")
    first, last = shapes.get(f"model.0.{entry}.weight"), shapes.get(f"model.{leave}.weight")
    if first is None or last is None:
        return None
    depth = max(key.count("1.submodule") for key in shapes)
    nests = ["model" + ".1.submodule" * level for level in range(depth + 1)]
    widths = [shapes[f"{nest}.0.{entry}.weight"][0] for nest in nests[:-1]]
    return "unet", {
        "in_channels": first[1],
        "num_classes": last[1],
        "spatial_dims": len(first) - 2,
        "channels": (*widths, shapes[f"{nests[-1]}.{entry}.weight"][0]),
        "num_res_units": units,
        "norm": "batch" if any(".adn.N." in key for key in shapes) else "instance",
    }


def _recognise_by(first_key: str, head_key: str, name: str, width: str = "") -> Callable[[Shapes], Any]:
    def recognise(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
        first, head = shapes.get(first_key), shapes.get(head_key)
        if first is None or head is None:
            return None
        options = {"in_channels": first[1], "num_classes": head[0], "spatial_dims": len(first) - 2}
        return name, options | ({width: first[0]} if width else {})

    return recognise


def _as_it_is(name: str) -> Callable[[Mapping[str, Tensor], dict[str, Any]], dict[str, Tensor]]:
    def map_state(state: Mapping[str, Tensor], options: dict[str, Any]) -> dict[str, Tensor]:
        import torch

        from napari_medt.nets import create_net

        with torch.device("meta"):
            known = create_net(name, **options).state_dict()
        for key in state:
            if f"net.{key}" not in known:  # another variant, which would be run without these
                raise KeyError(key)
        return {f"net.{key}": value for key, value in state.items()}

    return map_state


def _form(title: str, name: str, signature: tuple[str, ...], recognise: Callable[[Shapes], Any], *notes: str) -> Form:
    """The form of the baseline that is called `name` here."""
    return Form(
        name=title,
        signature=signature,
        recognise=recognise,
        map_state=_as_it_is(name),
        our_key=alone("net.{}".format),
        notes=notes,
    )


FORMS = (
    _form(
        "UNet of MONAI",
        "unet",
        ("model.0.conv.unit0.conv.weight", "model.2.0.conv.weight"),
        partial(_recognise_unet, residual=True),
        STRIDES,
        UNTOLD,
    ),
    _form(
        "UNet of MONAI without residual units",
        "unet",
        ("model.0.conv.weight", "model.2.conv.weight"),
        partial(_recognise_unet, residual=False),
        STRIDES,
        UNTOLD,
    ),
    _form(
        "VNet of MONAI",
        "vnet",
        ("in_tr.conv_block.conv.weight", "out_tr.conv2.weight"),
        _recognise_by("in_tr.conv_block.conv.weight", "out_tr.conv2.weight", "vnet"),
        UNTOLD,
    ),
    _form(
        "SwinUNETR of MONAI",
        "swin-unetr",
        ("swinViT.patch_embed.proj.weight", "encoder10.layer.conv1.conv.weight", "out.conv.conv.weight"),
        _recognise_by("swinViT.patch_embed.proj.weight", "out.conv.conv.weight", "swin-unetr", "width"),
        UNTOLD,
    ),
    _form(
        "SegResNet of MONAI",
        "segresnet",
        ("convInit.conv.weight", "conv_final.2.conv.weight"),
        _recognise_by("convInit.conv.weight", "conv_final.2.conv.weight", "segresnet", "width"),
        UNTOLD,
        "Networks of this form trained on BRATS give three overlapping regions, each with its own sigmoid, not classes.",
    ),
)
