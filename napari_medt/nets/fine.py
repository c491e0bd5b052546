"""FINE and GLAM: transformers whose windows have tokens that carry the context of the crop, and of the volume around it.

Sources: Themyr, Rambour, Thome, Collins, Hostettler, "Memory transformers for full context and high-resolution 3D Medical
Segmentation" (FINE), MLMI 2022; the same, "Full Contextual Attention for Multi-resolution Transformers in Semantic Segmentation"
(GLAM), WACV 2023. Both in the first version of nnFormer; details follow the released implementation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.capture import Recorder
from napari_medt.nets.layers import crop, pad_to_multiple, per_axis
from napari_medt.nets.nnformer_host import NnFormer, Stage, TokenPlan
from napari_medt.nets.registry import register
from napari_medt.nets.states import AttentionSource
from napari_medt.nets.token_attention import Crop
from napari_medt.nets.window_attention import Wiring

FINE_PAPER = (
    "Themyr et al., Memory transformers for full context and high-resolution 3D Medical Segmentation, MLMI 2022"
)
GLAM_PAPER = (
    "Themyr et al., Full Contextual Attention for Multi-resolution Transformers in Semantic Segmentation, WACV 2023"
)
PUBLISHED = {"num_classes": 14, "width": 192, "heads": (6, 12, 24, 48), "wiring": "authors"}
SMALL = {"width": 16, "heads": (2, 4, 8, 16), "drop_path": 0.0}


class WindowNetOutputs(NamedTuple):
    """What the networks give in training.

    Attributes
    ----------
    logits
        `(n, num_classes, z, y, x)`: what they give in evaluation.
    halfway
        Logits of the decoder's last stage but one, at every `step`-th voxel of each axis.
    """

    logits: Tensor
    halfway: Tensor


class VolumeCells(nn.Module):
    """The cells of a volume, centred on it, and those that training has seen.

    Parameters
    ----------
    grid
        Cells along `(z, y, x)`; an axis of one cell is not divided.
    cell_size
        Voxels of a cell.
    wiring
        `"authors"` counts visits in evaluation too, and takes crops beyond the far border for crops at the near one.
    """

    visits: Tensor

    def __init__(self, grid: Sequence[int], cell_size: Sequence[int], *, wiring: Wiring) -> None:
        super().__init__()
        self.grid, self.cell_size, self.wiring = tuple(grid), tuple(cell_size), wiring
        self.register_buffer("visits", torch.zeros(math.prod(grid)))

    def forward(self, positions: Tensor) -> Crop:
        """`(n, 3)`, crop centre minus volume centre in voxels; in training the visit is counted."""
        near = self.near(positions)
        if self.training or self.wiring == "authors":
            visits = torch.ones_like(near, dtype=self.visits.dtype).flatten()
            self.visits.index_add_(0, near.flatten(), visits)
        seen = (self.visits > 0).expand(len(near), -1)
        return Crop(near, seen.scatter(1, near, value=True), self.grid)

    def near(self, positions: Tensor) -> Tensor:
        """The cells around each position, two along each divided axis: `(n, near)`, row-major indices into `grid`."""
        chosen: list[list[Tensor]] = []
        for axis, (cells, size) in enumerate(zip(self.grid, self.cell_size, strict=True)):
            corner = positions[:, axis].double() + cells * size // 2  # from the near border of the cells
            cell = torch.div(corner - size // 2, size, rounding_mode="floor").long().clamp(0, cells - 1)
            if self.wiring == "authors":
                cell = torch.where(corner >= cells * size, 0, cell)
            beside = torch.where(cell + 1 < cells, cell + 1, cell - 1)
            chosen.append([cell, beside] if cells > 1 else [torch.zeros_like(cell)])
        _, rows, columns = self.grid
        return torch.stack([(z * rows + y) * columns + x for x, y, z in product(*reversed(chosen))], 1)


class WindowNet(nn.Module):
    """The host with its tokens; see `fine` and `glam` for the options.

    Attributes
    ----------
    multiple
        Sizes are padded to it, an axis each.
    step
        Distance of the voxels that the second output of training stands for.
    takes_position
        Whether `forward` makes use of the position of a crop in its volume.
    """

    spatial_dims = 3

    def __init__(self, host: NnFormer, cells: VolumeCells | None = None) -> None:
        super().__init__()
        self.in_channels, self.num_classes = host.in_channels, host.num_classes
        self.multiple, self.step = host.multiple, host.halfway_step
        self.takes_position = cells is not None
        self.cells, self.host = cells, host

    def forward(self, x: Tensor, position: Tensor | None = None) -> Tensor | WindowNetOutputs:
        """Segment crops.

        Parameters
        ----------
        x
            `(n, in_channels, z, y, x)` of any size.
        position
            Centre of each crop minus centre of its volume in voxels, `(n, 3)`; by default the centre. A mirrored crop has a
            mirrored position.

        Returns
        -------
        Tensor or WindowNetOutputs
            Logits `(n, num_classes, z, y, x)`; in training those of half resolution too.
        """
        size = x.shape[2:]
        place = None
        if self.cells is not None:
            centres = torch.zeros(3) if position is None else position
            place = self.cells(centres.to(x.device).expand(len(x), 3))
        logits, halfway = self.host(pad_to_multiple(x, self.multiple), place)
        logits = crop(logits, size)
        if halfway is None:
            return logits
        return WindowNetOutputs(
            logits, crop(halfway, [-(-side // step) for side, step in zip(size, self.step, strict=True)])
        )

    def loss(
        self, outputs: WindowNetOutputs, target: Tensor, criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    ) -> Tensor:
        """Two thirds of the criterion at full resolution and one third at half of it.

        Parameters
        ----------
        outputs
            Of a forward pass in training.
        target
            Class indices `(n, z, y, x)`.
        criterion
            Takes logits and target, gives a scalar; cross-entropy by default.
        """
        z, y, x = self.step
        return (2 * criterion(outputs.logits, target) + criterion(outputs.halfway, target[:, ::z, ::y, ::x])) / 3

    def attention_sources(self) -> dict[AttentionSource, Recorder]:
        """`"encoder.0.block0.window"`, then `.token` and `.volume` of the block, stage by stage; the decoder's deepest first."""
        sources: dict[AttentionSource, Recorder] = {}
        finest = max(self.host.patch).bit_length() - 1
        stages = [(f"encoder.{i}", i, stage) for i, stage in enumerate(self.host.encoder)]
        last = len(self.host.decoder)
        stages += [(f"decoder.{i}", last - 1 - i, stage) for i, stage in enumerate(self.host.decoder)]
        for name, level, stage in stages:
            assert isinstance(stage, Stage)
            for number, kind, module in stage.recorders():
                source = AttentionSource(f"{name}.block{number}.{kind}", kind, module.heads, finest + level)
                sources[source] = module
        return sources


@register(
    "fine",
    title="FINE",
    spatial_dims=(3,),
    multiple=32,
    paper=FINE_PAPER,
    attention="places of a window to each other and to its token, windows to all windows, and the crop to the rest of the volume",
    small=SMALL,
    published=PUBLISHED,
    may_be_zero=("window_tokens",),
)
def fine(
    in_channels: int = 1,
    num_classes: int = 2,
    img_size: int | Sequence[int] = (64, 128, 128),
    width: int = 48,
    heads: Sequence[int] = (3, 6, 12, 24),
    depths: Sequence[int] = (2, 2, 2, 2),
    window: int | Sequence[int] = 4,
    patch: Sequence[int] = (2, 4, 4),
    window_tokens: int = 1,
    volume_tokens: bool = True,
    volume_grid: int | Sequence[int] = (1, 5, 5),
    drop_path: float = 0.2,
    wiring: Wiring = "standard",
) -> WindowNet:
    """Windows with a token each, which see all windows of the crop and tokens that stand for places of the whole volume.

    Parameters
    ----------
    in_channels, num_classes
        Channels of the image; classes, background included.
    img_size
        Voxels `(z, y, x)` of the crops trained on: the size of a cell of the volume, and that of the learnt positions of
        windows. Crops of other sizes can be given.
    width, heads, depths, window, patch, drop_path
        As in `NnFormer`.
    window_tokens
        Tokens of a window. 0 is the plain host, and needs `volume_tokens=False`.
    volume_tokens
        Without them it resembles GLAM.
    volume_grid
        Cells of a volume along `(z, y, x)`. As published the slices share theirs; `(3, 5, 5)` divides all axes.
    wiring
        `"standard"`, or `"authors"` with the defects of the released code, for its weights.

    Raises
    ------
    ValueError
        If options do not fit each other.
    """
    sides, grid = per_axis(img_size, 3, name="img_size"), per_axis(volume_grid, 3, name="volume_grid")
    if window_tokens < 0 or (volume_tokens and not window_tokens):
        raise ValueError("volume tokens are read by window tokens: without these, give volume_tokens=False too")
    plan = TokenPlan("fine", window_tokens, math.prod(grid) if volume_tokens else 0, wiring)
    host = NnFormer(
        in_channels,
        num_classes,
        width=width,
        heads=heads,
        depths=depths,
        window=window,
        patch=patch,
        plan=plan,
        img_size=sides,
        drop_path=drop_path,
    )
    return WindowNet(host, VolumeCells(grid, sides, wiring=wiring) if volume_tokens else None)


@register(
    "glam",
    title="GLAM",
    spatial_dims=(3,),
    multiple=32,
    paper=GLAM_PAPER,
    attention="places of a window to each other and to its tokens, and windows to all windows",
    small=SMALL,
    published=PUBLISHED,
    may_be_zero=("window_tokens",),
)
def glam(
    in_channels: int = 1,
    num_classes: int = 2,
    width: int = 48,
    heads: Sequence[int] = (3, 6, 12, 24),
    depths: Sequence[int] = (2, 2, 2, 2),
    window: int | Sequence[int] = 4,
    patch: Sequence[int] = (2, 4, 4),
    window_tokens: int = 1,
    drop_path: float = 0.2,
    wiring: Wiring = "standard",
) -> WindowNet:
    """Windows with tokens that pass through a transformer layer over all windows of the crop.

    Parameters
    ----------
    in_channels, num_classes
        Channels of the image; classes, background included.
    width, heads, depths, window, patch, drop_path
        As in `NnFormer`.
    window_tokens
        Tokens of a window, 0 is the plain host.
    wiring
        `"standard"`, or `"authors"` with the defects of the released code, for its weights.
    """
    host = NnFormer(
        in_channels,
        num_classes,
        width=width,
        heads=heads,
        depths=depths,
        window=window,
        patch=patch,
        plan=TokenPlan("glam", window_tokens, 0, wiring),
        drop_path=drop_path,
    )
    return WindowNet(host)
