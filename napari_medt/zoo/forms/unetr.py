"""UNETR as self-attention-cv and as MONAI write it, in two and three dimensions, early versions of MONAI included."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from napari_medt.core import BadWeights
from napari_medt.zoo.forms.form import Form, Shapes

if TYPE_CHECKING:
    from torch import Tensor

PATCH = 16
DEPTH = 12
HEADS_CV = 10  # as published
HEAD_WIDTH_MONAI = 64  # as published: 12 heads of 768 channels
SIGNATURE_CV = (
    "embed.patch_embeddings.weight",
    "embed.position_embeddings.abs_pos_enc",
    "transformer.block_list.0.mhsa.to_qvk.weight",
    "transformer.block_list.0.linear.0.weight",
    "init_conv.conv_block.0.weight",
    "out_conv.1.weight",
)
SIGNATURE_MONAI = (
    "vit.patch_embedding.position_embeddings",
    "vit.blocks.0.attn.qkv.weight",
    "vit.blocks.0.mlp.linear1.weight",
    "encoder1.layer.conv1.conv.weight",
    "decoder5.conv_block.conv3.conv.weight",
    "out.conv.conv.weight",
)
# Cross-attention that is never computed, and a class token that is never read.
_UNUSED_MONAI = re.compile(r"vit\.(patch_embedding\.cls_token|blocks\.\d+\.(norm_cross_attn|cross_attn)\..+)")
_NOTE = (
    "The file tells neither the number of attention heads nor how its positions lie in the image. Where you give no heads= and "
    "img_size=, the published number and the most cube-like size are taken: wrong ones go unnoticed and give a poor result."
)


def recognise_cv(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    """Our name and options for a state dict of self-attention-cv, or None."""
    if any(key not in shapes for key in SIGNATURE_CV):
        return None
    _, tokens, embed = shapes["embed.position_embeddings.abs_pos_enc"]
    inner = shapes["transformer.block_list.0.mhsa.to_qvk.weight"][0] // 3
    heads = HEADS_CV if embed // HEADS_CV * HEADS_CV == inner else None
    hidden = shapes["transformer.block_list.0.linear.0.weight"][0]
    stem, head = shapes["init_conv.conv_block.0.weight"], shapes["out_conv.1.weight"]
    return "unetr", _options("self-attention-cv", stem, head, tokens, embed, heads, hidden)


def recognise_monai(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    """Our name and options for a state dict of MONAI, or None."""
    if any(key not in shapes for key in SIGNATURE_MONAI):
        return None
    _, tokens, embed = shapes["vit.patch_embedding.position_embeddings"]
    heads = None if embed % HEAD_WIDTH_MONAI else embed // HEAD_WIDTH_MONAI
    hidden = shapes["vit.blocks.0.mlp.linear1.weight"][0]
    stem, head = shapes["encoder1.layer.conv1.conv.weight"], shapes["out.conv.conv.weight"]
    form = "monai" if "encoder2.blocks.0.1.conv1.conv.weight" in shapes else "monai-linear"
    return "unetr", _options(form, stem, head, tokens, embed, heads, hidden)


def map_cv(state: Mapping[str, Tensor], options: dict[str, Any]) -> dict[str, Tensor]:
    """Our state dict from one of self-attention-cv; raises KeyError at the first unknown key.

    Raises
    ------
    BadWeights
        If the heads or the image size do not fit the file.
    """
    heads, names = _heads(options), _names_cv()
    ours = {}
    for key, value in state.items():
        name = names[key]
        if name.endswith("qkv.weight"):  # theirs has the head as its fastest axis, then q, k, v
            if heads < 1 or len(value) % (3 * heads):
                raise BadWeights(
                    f"{heads} heads do not fit the checkpoint, whose {key!r} has {len(value)} rows",
                    remedy="give the heads= it was trained with",
                )
            value = value.reshape(-1, 3, heads, value.shape[1]).permute(1, 2, 0, 3).reshape(value.shape)
        ours[name] = _positions(value, options) if name == "encoder.positions" else value
    return ours


def map_monai(state: Mapping[str, Tensor], options: dict[str, Any]) -> dict[str, Tensor]:
    """Our state dict from one of MONAI; raises KeyError at the first unknown key.

    Raises
    ------
    BadWeights
        If the heads or the image size do not fit the file.
    """
    _heads(options)
    names, dims = _names_monai(options["form"]), options["spatial_dims"]
    ours = {}
    for key, value in state.items():
        if _UNUSED_MONAI.fullmatch(key):
            continue
        if key.endswith(".conv3.conv.weight") and value.shape[0] == value.shape[1]:
            continue  # early versions kept a shortcut where none is needed
        name = names[key]
        if name == "encoder.project.weight" and value.ndim == 2:  # a linear layer over patches, channels fastest
            value = value.reshape(-1, *(PATCH,) * dims, value.shape[1] // PATCH**dims).movedim(-1, 1)
        ours[name] = _positions(value, options) if name == "encoder.positions" else value
    return ours


def likely_grid(tokens: int, dims: int) -> tuple[int, ...]:
    """The most cube-like grid of so many tokens, longest axis first: `(8, 8, 4)` for 256 in three dimensions."""
    divisors = [n for n in range(1, tokens + 1) if tokens % n == 0]
    grids = (grid for grid in product(divisors, repeat=dims) if prod(grid) == tokens)
    return min((tuple(sorted(grid, reverse=True)) for grid in grids), key=sum)


def _options(
    form: str,
    stem: tuple[int, ...],
    head: tuple[int, ...],
    tokens: int,
    embed: int,
    heads: int | None,
    hidden: int,
) -> dict[str, Any]:
    dims = len(head) - 2
    known = {
        "img_size": tuple(PATCH * edge for edge in likely_grid(tokens, dims)),
        "in_channels": stem[1],
        "num_classes": head[0],
        "spatial_dims": dims,
        "form": form,
        "width": head[1],
        "embed": embed,
        "hidden": hidden,
    }
    return known if heads is None else known | {"heads": heads}


def _heads(options: dict[str, Any]) -> int:
    if "heads" not in options:
        raise BadWeights(
            "The checkpoint does not tell its number of attention heads", remedy="give the heads= it was trained with"
        )
    return int(options["heads"])


def _positions(value: Tensor, options: dict[str, Any]) -> Tensor:
    size, dims = options["img_size"], options["spatial_dims"]
    edges = (size,) * dims if isinstance(size, int) else tuple(size)
    grid = tuple(edge // PATCH for edge in edges)
    if prod(grid) != value.shape[1]:
        raise BadWeights(
            f"The checkpoint has positions for {value.shape[1]} patches, not for {' x '.join(map(str, grid))}",
            remedy="give the img_size= it was trained with",
        )
    return value.transpose(1, 2).reshape(1, -1, *grid)


@cache
def _names_cv() -> dict[str, str]:
    """Their keys and ours."""
    names = {
        "embed.patch_embeddings.weight": "encoder.project.weight",
        "embed.position_embeddings.abs_pos_enc": "encoder.positions",
    }
    for block in range(DEPTH):
        theirs, ours = f"transformer.block_list.{block}", f"encoder.blocks.{block}"
        names[f"{theirs}.mhsa.to_qvk.weight"] = f"{ours}.attention.qkv.weight"
        names[f"{theirs}.mhsa.W_0.weight"] = f"{ours}.attention.out.weight"
        layers = {"norm_1": "norm1", "norm_2": "norm2", "linear.0": "mlp.0", "linear.3": "mlp.2"}
        names |= _with_bias({f"{theirs}.{k}": f"{ours}.{v}" for k, v in layers.items()})
    for level, block_name in enumerate(("out_conv.0", "z3_conv", "z6_conv", "z9_conv", "init_conv")):
        ours = "stem" if block_name == "init_conv" else f"fuse.{level}"
        layers = {"conv_block.0": "conv1", "conv_block.3": "conv2", "conv_down.0": "shortcut"}
        names |= _with_bias({f"{block_name}.{k}": f"{ours}.{v}" for k, v in layers.items()})
    for level, tap in enumerate((3, 6, 9, 12)):
        names[f"z{tap}_deconv.block.weight"] = f"ups.{level}.weight"
        for step in range(3 - level):
            names[f"z{tap}_blue_conv.blocks.{step}.block.weight"] = f"skips.{level}.{step}.weight"
    return names | _with_bias({"out_conv.1": "head"})


@cache
def _names_monai(form: str) -> dict[str, str]:
    """Their keys and ours."""
    project = "vit.patch_embedding.patch_embeddings"
    names = {"vit.patch_embedding.position_embeddings": "encoder.positions"}
    names |= _with_bias({project: "encoder.project", f"{project}.1": "encoder.project", "vit.norm": "encoder.norm"})
    for block in range(DEPTH):
        theirs, ours = f"vit.blocks.{block}", f"encoder.blocks.{block}"
        names[f"{theirs}.attn.qkv.weight"] = f"{ours}.attention.qkv.weight"
        layers = {"attn.out_proj": "attention.out", "norm1": "norm1", "norm2": "norm2"}
        layers |= {"mlp.linear1": "mlp.0", "mlp.linear2": "mlp.2"}
        names |= _with_bias({f"{theirs}.{k}": f"{ours}.{v}" for k, v in layers.items()})
    convs = {"conv1": "conv1", "conv2": "conv2", "conv3": "shortcut"}
    names |= {f"encoder1.layer.{k}.conv.weight": f"stem.{v}.weight" for k, v in convs.items()}
    for level in range(4):
        decoder, encoder, skip = f"decoder{level + 2}", f"encoder{level + 2}", f"skips.{level}"
        names[f"{decoder}.transp_conv.conv.weight"] = f"ups.{level}.weight"
        names |= {f"{decoder}.conv_block.{k}.conv.weight": f"fuse.{level}.{v}.weight" for k, v in convs.items()}
        names[f"{encoder}.transp_conv_init.conv.weight"] = f"{skip}.0.weight"
        for step in range(2 - level):
            if form == "monai-linear":
                names[f"{encoder}.blocks.{step}.conv.weight"] = f"{skip}.{step + 1}.weight"
                continue
            names[f"{encoder}.blocks.{step}.0.conv.weight"] = f"{skip}.{2 * step + 1}.weight"
            for conv in ("conv1", "conv2"):
                names[f"{encoder}.blocks.{step}.1.{conv}.conv.weight"] = f"{skip}.{2 * step + 2}.{conv}.weight"
    return names | _with_bias({"out.conv.conv": "head"})


def _with_bias(names: dict[str, str]) -> dict[str, str]:
    """Both tensors of a layer."""
    return {f"{k}.{leaf}": f"{v}.{leaf}" for k, v in names.items() for leaf in ("weight", "bias")}


SELF_ATTENTION_CV = Form(
    name="UNETR of self-attention-cv",
    signature=SIGNATURE_CV,
    recognise=recognise_cv,
    map_state=map_cv,
    our_key=lambda key, shapes, options: _names_cv()[key],
    guessed=("heads", "img_size"),
    notes=(_NOTE,),
)
MONAI = Form(
    name="UNETR of MONAI",
    signature=SIGNATURE_MONAI,
    recognise=recognise_monai,
    map_state=map_monai,
    our_key=lambda key, shapes, options: _names_monai(options["form"])[key],
    guessed=("heads", "img_size"),
    notes=(_NOTE,),
)
