"""The U-shaped transformer in whose windows GLAM and FINE put their tokens.

Source: Zhou et al., "nnFormer: Interleaved Transformer for Volumetric Segmentation", arXiv:2109.03201, first version: windows of
four places everywhere, skips added, two of the decoder's stages supervised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.states import Kind
from napari_medt.nets.token_attention import Crop, FineMixer, GlamMixer, TokenAttention, Tokens, mlp
from napari_medt.nets.window_attention import Layout, WindowAttention, Wiring


@dataclass(frozen=True)
class TokenPlan:
    """What tokens a network has.

    Attributes
    ----------
    style
        How they attend: `GlamMixer` or `FineMixer`.
    count
        Of each window; 0 is the plain host.
    cells
        Of the volume.
    wiring
        `"authors"` also has the layers whose result nothing reads.
    """

    style: Literal["glam", "fine"]
    count: int
    cells: int
    wiring: Wiring


def _enlarge(channels: int, num_classes: int, kernel: Sequence[int]) -> nn.ConvTranspose3d:
    z, y, x = kernel
    return nn.ConvTranspose3d(channels, num_classes, (z, y, x), stride=(z, y, x))


class DropPath(nn.Module):
    """Leaves out a residual branch for some samples of the batch in training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """`(n, ...)`, the same shape."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of `(n, c, z, y, x)`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name the base class gives it)
        """Same shape."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class PatchEmbed(nn.Sequential):
    """Four convolutions that make one place of each patch of `(n, in_channels, z, y, x)`."""

    def __init__(self, in_channels: int, channels: int, patch: Sequence[int]) -> None:
        half = channels // 2
        z, y, x = patch
        first = (min(z, 2), min(y, 2), min(x, 2))
        second = (z // first[0], y // first[1], x // first[2])
        super().__init__(
            *(nn.Conv3d(in_channels, half, 3, first, padding=1), nn.GELU(), ChannelNorm(half)),
            *(nn.Conv3d(half, half, 3, padding=1), nn.GELU(), ChannelNorm(half)),
            *(nn.Conv3d(half, channels, 3, second, padding=1), nn.GELU(), ChannelNorm(channels)),
            *(nn.Conv3d(channels, channels, 3, padding=1), ChannelNorm(channels)),
        )


class Down(nn.Module):
    """Halves `(n, z, y, x, c)`; twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.Conv3d(channels, 2 * channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, z, y, x, c)` to `(n, z / 2, y / 2, x / 2, 2 c)`."""
        out: Tensor = self.conv(self.norm(F.gelu(x)).movedim(-1, 1))
        return out.movedim(1, -1)


class Up(nn.Module):
    """Doubles `(n, z, y, x, c)`; half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.ConvTranspose3d(channels, channels // 2, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, z, y, x, c)` to `(n, 2 z, 2 y, 2 x, c / 2)`."""
        out: Tensor = self.conv(self.norm(x).movedim(-1, 1))
        return out.movedim(1, -1)


class Block(nn.Module):
    """Window attention and a perceptron, for places and tokens alike; then the tokens mix."""

    def __init__(
        self, channels: int, heads: int, window: int, plan: TokenPlan, *, shifted: bool, mixes: bool, drop: float
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attend = WindowAttention(channels, heads, window, shifted=shifted, wiring=plan.wiring)
        self.mlp = mlp(channels)
        self.drop = DropPath(drop)
        self.mixer: GlamMixer | FineMixer | None = None
        self.norms_tokens = plan.style == "glam"
        if mixes and plan.style == "glam":
            self.mixer = GlamMixer(channels, heads, DropPath(drop))
        elif mixes:
            self.mixer = FineMixer(channels, heads, volume=plan.cells > 0, wiring=plan.wiring)

    def forward(
        self, x: Tensor, tokens: Tokens | None, positions: Tensor | None, crop: Crop | None
    ) -> tuple[Tensor, Tokens | None]:
        """Places `(n, z, y, x, c)` and tokens, in the same shapes."""
        window = None if tokens is None else tokens.window
        asking = self.norm1(window) if window is not None and self.norms_tokens else window
        attended, read = self.attend(self.norm1(x), asking)
        x = self._finish(x, attended)
        if tokens is None or self.mixer is None:
            return x, tokens
        layout = Layout.over(x.shape[1:4], self.attend.window, shifted=self.attend.shifted, wiring=self.attend.wiring)
        tokens = tokens._replace(window=self._finish(tokens.window, read))
        if isinstance(self.mixer, GlamMixer):
            return x, self.mixer(tokens, layout)
        assert positions is not None
        return x, self.mixer(tokens, layout, positions, crop)

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.drop(attended)
        out: Tensor = x + self.drop(self.mlp(self.norm2(x)))
        return out


class Stage(nn.Module):
    """Blocks at one resolution, with windows shifted in every second one.

    Tokens pass from block to block and end with the stage, so the last block has no use for mixing them.

    Parameters
    ----------
    channels, heads, window
        As in `WindowAttention`.
    plan
        Its tokens.
    grid
        Places of an image of the size trained on.
    drops
        Rate of `DropPath`, a block each.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        window: int,
        plan: TokenPlan,
        *,
        grid: Sequence[int],
        drops: Sequence[float],
    ) -> None:
        super().__init__()
        mixing = [plan.count > 0 and (i + 1 < len(drops) or plan.wiring == "authors") for i in range(len(drops))]
        self.counts = Layout.over(grid, window, shifted=False).counts
        self.token = nn.Parameter(torch.randn(plan.count, channels)) if plan.count else None
        self.volume: nn.Parameter | None = None
        self.positions: nn.Parameter | None = None
        if plan.style == "fine" and any(mixing):
            windows = torch.empty(self.counts[0] * self.counts[1] * self.counts[2], channels)
            self.positions = nn.Parameter(nn.init.trunc_normal_(windows, std=0.02))
            self.volume = nn.Parameter(torch.randn(plan.cells, channels)) if plan.cells else None
        self.blocks = nn.ModuleList(
            Block(channels, heads, window, plan, shifted=i % 2 == 1, mixes=mixes, drop=drop)
            for i, (mixes, drop) in enumerate(zip(mixing, drops, strict=True))
        )
        self.window = window

    def forward(self, x: Tensor, crop: Crop | None = None) -> Tensor:
        """`(n, z, y, x, c)`, the same shape; `crop` where there are volume tokens."""
        tokens: Tokens | None = None
        positions: Tensor | None = self.positions
        counts = Layout.over(x.shape[1:4], self.window, shifted=False).counts
        if self.token is not None:
            window = self.token.expand(len(x), counts[0] * counts[1] * counts[2], -1, -1)
            tokens = Tokens(window, None if self.volume is None else self.volume.expand(len(x), -1, -1))
        if positions is not None and counts != self.counts:  # an image of another size: they are resampled
            grid = positions.T.reshape(1, -1, *self.counts)
            positions = F.interpolate(grid, counts, mode="trilinear").flatten(2)[0].T
        for block in self.blocks:
            x, tokens = block(x, tokens, positions, crop)
        return x

    def recorders(self) -> Iterator[tuple[int, Kind, WindowAttention | TokenAttention]]:
        """Number of the block, kind and module of each attention."""
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            yield number, "window", block.attend
            if block.mixer is not None:
                yield number, "token", block.mixer.attend
                if isinstance(block.mixer, FineMixer) and block.mixer.volume is not None:
                    yield number, "volume", block.mixer.volume


class NnFormer(nn.Module):
    """Encoder of four stages, decoder of three, two heads.

    Parameters
    ----------
    in_channels, num_classes
        Channels of the image; classes, background included.
    width
        Channels at the finest stage, doubled at each further one.
    heads, depths, window
        Attention heads, blocks and side of the windows of each stage, finest first; the decoder repeats all but the last. One
        number for `window` is that of all stages.
    patch
        Voxels of the finest places, 1, 2 or 4 along each axis.
    plan
        Tokens.
    img_size
        Voxels `(z, y, x)` of the images trained on, where windows have learnt positions.
    drop_path
        Share of samples that the last block of the encoder leaves out in training; fewer before.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        width: int,
        heads: Sequence[int],
        depths: Sequence[int],
        window: int | Sequence[int],
        patch: Sequence[int],
        plan: TokenPlan,
        img_size: Sequence[int] = (1, 1, 1),
        drop_path: float,
    ) -> None:
        super().__init__()
        windows = [window] * len(heads) if isinstance(window, int) else window
        if not (len(heads) == len(depths) == len(windows) and len(heads) >= 3):
            raise ValueError(f"heads, depths and window must name the same stages, three or more: {heads}, {depths}")
        if width % 2 or len(patch) != 3 or not set(patch) <= {1, 2, 4}:
            raise ValueError(f"width must be even and patch three of 1, 2 and 4, not {width} and {tuple(patch)}")
        grids = [
            [max(1, -(-n // (side << i))) for n, side in zip(img_size, patch, strict=True)] for i in range(len(heads))
        ]
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path is a share from 0 to below 1, not {drop_path}")
        if plan.wiring not in get_args(Wiring):
            raise ValueError(f"wiring is one of {', '.join(get_args(Wiring))}, not {plan.wiring!r}")
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").tolist()
        drops = [rates[sum(depths[:i]) : sum(depths[: i + 1])] for i in range(len(depths))]

        def stage(i: int) -> Stage:
            return Stage(width << i, heads[i], windows[i], plan, grid=grids[i], drops=drops[i])

        last = len(heads) - 1
        self.in_channels, self.num_classes = in_channels, num_classes
        self.patch = tuple(patch)
        self.multiple = tuple(side << last for side in patch)
        self.embed = PatchEmbed(in_channels, width, patch)
        self.encoder = nn.ModuleList(stage(i) for i in range(last + 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width << i) for i in range(last + 1))
        self.downs = nn.ModuleList(Down(width << i) for i in range(last))
        self.ups = nn.ModuleList(Up(width << i) for i in range(last, 0, -1))
        self.decoder = nn.ModuleList(stage(i) for i in reversed(range(last)))
        # The half-way head enlarges fourfold as published, but never beyond the image.
        self.halfway_step = tuple(max(1, side // 2) for side in patch)
        kernel = tuple(2 * side // step for side, step in zip(patch, self.halfway_step, strict=True))
        self.head = _enlarge(width, num_classes, self.patch)
        self.halfway = _enlarge(2 * width, num_classes, kernel)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, crop: Crop | None = None) -> tuple[Tensor, Tensor | None]:
        """`(n, in_channels, *size)`, multiples of `multiple`, to logits and, in training, to those of half resolution."""
        x = self.embed(x).movedim(1, -1)
        skips = []
        for i, (stage, norm) in enumerate(zip(self.encoder, self.norms, strict=True)):
            x = stage(x, crop)
            skips.append(norm(x))
            if i < len(self.downs):
                x = self.downs[i](x)
        x, halfway = skips.pop(), None
        for up, stage in zip(self.ups, self.decoder, strict=True):
            x = stage(up(x) + skips.pop(), crop)
            if self.training and len(skips) == 1:
                halfway = self.halfway(x.movedim(-1, 1))
        return self.head(x.movedim(-1, 1)), halfway
