"""The Medical Transformer family: axial-attention U-Net, gated axial-attention U-Net, LoGo and MedT.

Source: Valanarasu, Oza, Hacihaliloglu, Patel, "Medical Transformer: Gated Axial-Attention for Medical Image
Segmentation", MICCAI 2021, section 3. Layer sizes follow the released implementation, which differs from the figures of the
paper: 8 heads, the local branch of MedT without positions, three convolutions before the first block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.axial import HEADS, AxialAttention, AxialBlock, Kind
from napari_medt.nets.layers import crop, pad_to_multiple, per_axis
from napari_medt.nets.norm import BatchNorm, conv_norm
from napari_medt.nets.registry import register
from napari_medt.nets.states import AttentionSource

PAPER = "Valanarasu et al., Medical Transformer: Gated Axial-Attention for Medical Image Segmentation, MICCAI 2021"
WIDTHS = (16, 32, 64, 128)
BLOCKS = (1, 2, 4, 1)
GRID = 4  # the local branch sees the image as a 4 x 4 grid of patches

Size = int | tuple[int, int]


class Stem(nn.Module):
    """Three convolutions with batch norm, the first of stride 2: `(n, c, h, w)` to `(n, width, h / 2, w / 2)`."""

    def __init__(self, in_channels: int, width: int, *, hidden: int = 128, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.conv2 = nn.Conv2d(width, hidden, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(hidden, width, 3, padding=1, bias=False)
        self.norm1, self.norm2, self.norm3 = (BatchNorm(c, groups=groups) for c in (width, hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Halve the image and give it `width` channels."""
        x = F.relu(conv_norm(x, self.conv1, self.norm1))
        x = F.relu(conv_norm(x, self.conv2, self.norm2))
        return F.relu(conv_norm(x, self.conv3, self.norm3))


class Encoder(nn.Module):
    """Stem and up to four stages of axial blocks; gives the output of every stage, finest first."""

    def __init__(
        self,
        in_channels: int,
        stem: int,
        size: tuple[int, int],
        *,
        stages: int = 4,
        kind: Kind = "axial",
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.stem = Stem(in_channels, stem, groups=groups)
        self.layers = nn.ModuleList()
        channels, (h, w) = stem, (size[0] // 2, size[1] // 2)
        for stage, (width, blocks) in enumerate(zip(WIDTHS[:stages], BLOCKS[:stages], strict=True)):
            layer = nn.Sequential()
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layer.append(AxialBlock(channels, width, (h, w), stride=stride, kind=kind, groups=groups))
                channels, h, w = 2 * width, h // stride, w // stride
            self.layers.append(layer)

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(n, c, h, w)` to features at 1/2, 1/4, ... of the size."""
        x = self.stem(x)
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features

    def blocks(self) -> Iterator[tuple[str, AxialBlock]]:
        """Name, for example `"layer1.0"`, and block, in the order they run."""
        for stage, layer in enumerate(self.layers, start=1):
            for index, block in enumerate(layer.children()):
                assert isinstance(block, AxialBlock)
                yield f"layer{stage}.{index}", block


class Decoder(nn.Module):
    """Convolutions that double the size and add the encoder's features, up to full resolution with 16 channels.

    Five convolutions where the encoder has four stages (the first has stride 2, so that its output returns to the size of the
    deepest features), two where it has two.
    """

    def __init__(self, stages: int) -> None:
        super().__init__()
        channels = [2 * width for width in WIDTHS[:stages]]
        self.convs = nn.ModuleList()
        if stages == len(WIDTHS):
            self.convs.append(nn.Conv2d(channels[-1], channels[-1], 3, stride=2, padding=1))
        for below, above in zip(channels[:0:-1], channels[-2::-1], strict=True):
            self.convs.append(nn.Conv2d(below, above, 3, padding=1))
        self.convs.append(nn.Conv2d(channels[0], 16, 3, padding=1))

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Features, finest first, to `(n, 16, *size)`."""
        skips = features[::-1] if len(self.convs) > len(features) else features[-2::-1]
        x = features[-1]
        for conv, skip in zip(self.convs, [*skips, None], strict=True):
            x = F.interpolate(
                conv(x), size=size if skip is None else skip.shape[-2:], mode="bilinear", align_corners=False
            )
            x = F.relu(x) if skip is None else F.relu(x) + skip
        return x


class AxialUNet(nn.Module):
    """U-Net whose encoder is made of axial-attention blocks.

    Parameters
    ----------
    img_size
        Height and width the position tables are made for; other sizes use interpolated tables.
    in_channels, num_classes
        Channels of the image; classes, background included.
    kind
        `"axial"` or `"gated"`.
    """

    multiple = 16
    spatial_dims = 2

    def __init__(
        self, img_size: Size = 128, *, in_channels: int = 3, num_classes: int = 2, kind: Kind = "axial"
    ) -> None:
        super().__init__()
        size = check_size(img_size, self.multiple)
        self.in_channels, self.num_classes = in_channels, num_classes
        self.encoder = Encoder(in_channels, 8, size, kind=kind)
        self.decoder = Decoder(len(WIDTHS))
        self.head = nn.Conv2d(16, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, in_channels, h, w)` to logits `(n, num_classes, h, w)`."""
        size = x.shape[2:]
        x = pad_to_multiple(x, self.multiple)
        return crop(self.head(self.decoder(self.encoder(x), x.shape[-2:])), size)

    def attention_blocks(self) -> dict[str, AxialBlock]:
        """Blocks whose attention can be looked at, by name."""
        return dict(self.encoder.blocks())

    def attention_sources(self) -> dict[AttentionSource, AxialAttention]:
        """Height and width attention of every block."""
        return _sources(self.attention_blocks())


class LocalGlobalNet(nn.Module):
    """A shallow branch over the whole image and a deep one over its 4 x 4 patches, added and decoded together.

    Parameters
    ----------
    img_size
        Height and width the position tables are made for; the patches of the local branch are a quarter of the image.
    in_channels, num_classes
        Channels of the image; classes, background included.
    global_kind, local_kind
        Attention of the branches: MedT has `"gated"` and `"content"`, LoGo `"axial"` twice.
    local_statistics
        Batch norm of the local branch in training: `"patch"` normalises each of the 16 patch positions by itself, as the
        published training loop does; `"batch"` takes all patches together, which is steadier for small batches.
    """

    multiple = 16 * GRID
    spatial_dims = 2

    def __init__(
        self,
        img_size: Size = 128,
        *,
        in_channels: int = 3,
        num_classes: int = 2,
        global_kind: Kind = "gated",
        local_kind: Kind = "content",
        local_statistics: Literal["patch", "batch"] = "patch",
    ) -> None:
        super().__init__()
        h, w = check_size(img_size, self.multiple)
        self.in_channels, self.num_classes = in_channels, num_classes
        if local_statistics not in ("patch", "batch"):
            raise ValueError(f"local_statistics is 'patch' or 'batch', not {local_statistics!r}")
        groups = GRID**2 if local_statistics == "patch" else 1
        self.global_encoder = Encoder(in_channels, 8, (h, w), stages=2, kind=global_kind)
        self.global_decoder = Decoder(2)
        self.local_encoder = Encoder(in_channels, 64, (h // GRID, w // GRID), kind=local_kind, groups=groups)
        for module in self.local_encoder.modules():
            if isinstance(module, AxialAttention):
                module.patches = GRID
        self.local_decoder = Decoder(len(WIDTHS))
        self.fuse = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Conv2d(16, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, in_channels, h, w)` to logits `(n, num_classes, h, w)`."""
        size = x.shape[2:]
        x = pad_to_multiple(x, self.multiple)
        whole = self.global_decoder(self.global_encoder(x), x.shape[-2:])
        patches = to_patches(x)
        local = from_patches(self.local_decoder(self.local_encoder(patches), patches.shape[-2:]))
        return crop(self.head(F.relu(self.fuse(whole + local))), size)

    def attention_blocks(self) -> dict[str, AxialBlock]:
        """Blocks whose attention can be looked at, by branch, layer and number."""
        branches = (("global", self.global_encoder), ("local", self.local_encoder))
        return {f"{branch}.{name}": block for branch, encoder in branches for name, block in encoder.blocks()}

    def attention_sources(self) -> dict[AttentionSource, AxialAttention]:
        """Height and width attention of every block; the local branch never looks beyond its patch."""
        return _sources(self.attention_blocks())


def _sources(blocks: dict[str, AxialBlock]) -> dict[AttentionSource, AxialAttention]:
    found: dict[AttentionSource, AxialAttention] = {}
    level = 1  # the stem halves the image
    for name, block in blocks.items():
        if name.endswith("layer1.0"):
            level = 1
        found[AttentionSource(f"{name}.height", "axial column", HEADS, level)] = block.height
        found[AttentionSource(f"{name}.width", "axial row", HEADS, level)] = block.width
        level += block.stride == 2  # a block halves its output
    return found


def to_patches(x: Tensor) -> Tensor:
    """Cut `(n, c, h, w)` into `(n * 16, c, h / 4, w / 4)`, sample by sample, row by row."""
    n, c, h, w = x.shape
    x = x.view(n, c, GRID, h // GRID, GRID, w // GRID).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(n * GRID**2, c, h // GRID, w // GRID)


def from_patches(x: Tensor) -> Tensor:
    """Put patches together again: the inverse of `to_patches`."""
    n, c, h, w = x.shape
    x = x.view(n // GRID**2, GRID, GRID, c, h, w).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(n // GRID**2, c, GRID * h, GRID * w)


def check_size(img_size: Size, multiple: int) -> tuple[int, int]:
    """`(height, width)` after checking that the position tables can be made for it."""
    height, width = per_axis(img_size, 2, name="img_size")
    if height % multiple or width % multiple:
        raise ValueError(f"img_size must be a multiple of {multiple}, not {height} x {width}")
    return height, width


ROWS_AND_COLUMNS = "row and column attention of every block"


@register(
    "axial-unet", title="Axial-attention U-Net", spatial_dims=(2,), multiple=16, paper=PAPER, attention=ROWS_AND_COLUMNS
)
def axial_unet(img_size: Size = 128, in_channels: int = 3, num_classes: int = 2) -> AxialUNet:
    """Axial-attention U-Net: 1.33 million parameters at the defaults."""
    return AxialUNet(img_size, in_channels=in_channels, num_classes=num_classes)


@register(
    "gated-axial-unet",
    title="Gated axial-attention U-Net",
    spatial_dims=(2,),
    multiple=16,
    paper=PAPER,
    attention=ROWS_AND_COLUMNS,
)
def gated_axial_unet(img_size: Size = 128, in_channels: int = 3, num_classes: int = 2) -> AxialUNet:
    """Axial-attention U-Net with gates on the positional terms: 1.33 million parameters at the defaults."""
    return AxialUNet(img_size, in_channels=in_channels, num_classes=num_classes, kind="gated")


@register("logo", title="LoGo", spatial_dims=(2,), multiple=64, paper=PAPER, attention=ROWS_AND_COLUMNS + ", by branch")
def logo(
    img_size: Size = 128,
    in_channels: int = 3,
    num_classes: int = 2,
    local_statistics: Literal["patch", "batch"] = "patch",
) -> LocalGlobalNet:
    """Local and global branch with plain axial attention: 1.53 million parameters at the defaults."""
    return LocalGlobalNet(
        img_size,
        in_channels=in_channels,
        num_classes=num_classes,
        global_kind="axial",
        local_kind="axial",
        local_statistics=local_statistics,
    )


@register(
    "medt",
    title="Medical Transformer (MedT)",
    spatial_dims=(2,),
    multiple=64,
    paper=PAPER,
    attention=ROWS_AND_COLUMNS + ", by branch",
)
def medt(
    img_size: Size = 128,
    in_channels: int = 3,
    num_classes: int = 2,
    local_statistics: Literal["patch", "batch"] = "patch",
) -> LocalGlobalNet:
    """Local and global branch, the global one gated: 1.52 million parameters at the defaults."""
    return LocalGlobalNet(img_size, in_channels=in_channels, num_classes=num_classes, local_statistics=local_statistics)
