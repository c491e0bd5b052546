"""Multi-scale guided attention: places and channels attend at four scales, refined twice and guided by autoencoders.

Source: Sinha, Dolz, "Multi-scale self-guided attention for medical image segmentation", IEEE Journal of Biomedical and
Health Informatics 2021 (arXiv:1906.02849), section III. Layer sizes follow the released implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.capture import Recorder
from napari_medt.nets.dual_attention import ChannelAttention, PositionAttention
from napari_medt.nets.layers import crop, pad_to_multiple
from napari_medt.nets.norm import BatchNorm
from napari_medt.nets.registry import register
from napari_medt.nets.resnet import ResNeXt, TimmFeatures
from napari_medt.nets.states import AttentionSource, GateState, Kind

PAPER = "Sinha and Dolz, Multi-scale self-guided attention for medical image segmentation, IEEE JBHI 2021"
SCALES = (4, 3, 2, 1)  # coarse to fine, the order in which everything below is kept and run
RECORDED: dict[str, Kind] = {"channel": "channel", "position": "position", "guided": "gate"}


class GuidedOutputs(NamedTuple):
    """What the network gives in training.

    Attributes
    ----------
    logits
        Mean of the refined predictions, `(n, num_classes, h, w)`: what it gives in evaluation.
    coarse, refined
        Predictions before and after the attention, a scale each, coarse to fine, `(n, num_classes, h, w)`.
    latents, inputs, reconstructions
        Of the autoencoders of the first and of the second step, all scales along the first axis.
    """

    logits: Tensor
    coarse: tuple[Tensor, ...]
    refined: tuple[Tensor, ...]
    latents: tuple[Tensor, Tensor]
    inputs: tuple[Tensor, Tensor]
    reconstructions: tuple[Tensor, Tensor]


class Guide(Recorder):
    """Multiplies the attended features by what the autoencoder kept of its input: the guided attention of one scale.

    Recorded is its strength, the root mean square over channels in units of the largest in its image.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.semantic = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, attended: Tensor, reconstruction: Tensor) -> Tensor:
        """`(n, c, h, w)` and `(n, 2 c, h, w)` to `(n, c, h, w)`."""
        guided: Tensor = self.mix(attended * self.semantic(reconstruction))
        if self.seen is not None:
            strength = guided.detach().float().square().mean(1, keepdim=True).sqrt()
            largest = strength.amax((2, 3), keepdim=True).clamp_min(torch.finfo(strength.dtype).tiny)
            self.seen.append(GateState(strength / largest))
        return guided


class AutoEncoder(nn.Module):
    """One autoencoder for the four scales of a step: `(4 n, c, h, w)`, scale by scale within a sample, `h` and `w` in fours.

    Its batch norm takes the statistics of each scale by itself, as if the scales had passed one after the other.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.encode1 = nn.Sequential(*_twice(c, 2 * c), nn.MaxPool2d(2))
        self.encode2 = nn.Sequential(*_twice(2 * c, 4 * c), nn.MaxPool2d(2))
        self.decode2 = nn.Sequential(*_twice(4 * c, 2 * c), nn.ConvTranspose2d(2 * c, 2 * c, 2, stride=2))
        self.decode1 = nn.Sequential(*_twice(2 * c, c), nn.ConvTranspose2d(c, c, 2, stride=2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latent `(4 n, 4 c, h / 4, w / 4)` and reconstruction `(4 n, c, h, w)`."""
        latent = self.encode2(self.encode1(x))
        return latent, self.decode1(self.decode2(latent))


def _twice(in_channels: int, channels: int) -> list[nn.Module]:
    """Two 3 x 3 convolutions with batch norm by scale and rectifier."""
    return [
        module
        for before in (in_channels, channels)
        for module in (
            nn.Conv2d(before, channels, 3, padding=1),
            BatchNorm(channels, groups=len(SCALES)),
            nn.ReLU(inplace=True),
        )
    ]


def _unit(in_channels: int, channels: int, kernel: int) -> list[nn.Module]:
    """Convolution, batch norm and a rectifier whose negative slope is learnt."""
    conv = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2)
    return [conv, nn.BatchNorm2d(channels), nn.PReLU()]


class GuidedStep(nn.Module):
    """Position and channel attention at four scales, guided by one autoencoder."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.position, self.channel = (
            nn.ModuleList(nn.Sequential(*_unit(2 * c, c, 3), attend(), *_unit(c, c, 3)) for _ in SCALES)
            for attend in (lambda: PositionAttention(c), ChannelAttention)
        )
        self.autoencoder = AutoEncoder(2 * c)
        self.guides = nn.ModuleList(Guide(c) for _ in SCALES)

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """Four `(n, 2 c, h, w)`, coarse to fine, to four guided attentions, and input, latent and output of the autoencoder."""
        stacked = torch.stack(x, 1).flatten(0, 1)
        if stacked.device.type == "cpu" and not self.training:  # a seventh faster there
            stacked = stacked.contiguous(memory_format=torch.channels_last)
        latent, reconstruction = self.autoencoder(stacked)
        by_scale = reconstruction.unflatten(0, (-1, len(SCALES))).unbind(1)
        guided = [
            guide(channel(scale) + position(scale), semantic)
            for scale, semantic, channel, position, guide in zip(
                x, by_scale, self.channel, self.position, self.guides, strict=True
            )
        ]
        return guided, stacked, latent, reconstruction

    def recorders(self) -> Iterator[tuple[Recorder, ...]]:
        """Channel attention, position attention and guide of each scale, coarse to fine."""
        for modules in zip(self.channel.children(), self.position.children(), self.guides.children(), strict=True):
            yield tuple(part for module in modules for part in module.modules() if isinstance(part, Recorder))


class GuidedAttentionNet(nn.Module):
    """Residual encoder whose four scales are fused, attended twice and averaged.

    Parameters
    ----------
    encoder
        Gives four features at 1/4 to 1/32 of the image and says their `channels`.
    in_channels, num_classes
        Channels of the image; classes, background included.
    width
        Channels of every scale after the encoder, a multiple of 8.

    Raises
    ------
    ValueError
        If `width` is no multiple of 8.
    """

    multiple = 32
    spatial_dims = 2

    def __init__(
        self, encoder: ResNeXt | TimmFeatures, *, in_channels: int = 1, num_classes: int = 2, width: int = 32
    ) -> None:
        super().__init__()
        if width < 8 or width % 8:
            raise ValueError(f"width must be a multiple of 8, not {width}")
        self.in_channels, self.num_classes = in_channels, num_classes
        self.backbone = encoder
        self.down = nn.ModuleList(nn.Sequential(*_unit(c, width, 1)) for c in reversed(encoder.channels))
        c = width
        self.fuse = nn.Sequential(*_unit(len(SCALES) * c, c, 3), *_unit(c, c, 3), *_unit(c, c, 1))
        self.first, self.second = GuidedStep(c), GuidedStep(c)
        self.coarse_heads, self.refined_heads = (
            nn.ModuleList(nn.Conv2d(c, num_classes, 1) for _ in SCALES) for _ in range(2)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor | GuidedOutputs:
        """`(n, in_channels, h, w)` to logits `(n, num_classes, h, w)`, in training to `GuidedOutputs`."""
        size, x = x.shape[2:], self._pad(x)
        features = self.backbone(x)[::-1]
        grid = features[-1].shape[2:]
        scales = [_resize(down(f), grid) for down, f in zip(self.down, features, strict=True)]
        fused = self.fuse(torch.cat(scales, 1))
        first, *kept1 = self.first([torch.cat((scale, fused), 1) for scale in scales])
        second, *kept2 = self.second([torch.cat((s, g * fused), 1) for s, g in zip(scales, first, strict=True)])
        refined = [head(guided) for head, guided in zip(self.refined_heads, second, strict=True)]

        def enlarge(prediction: Tensor) -> Tensor:
            return crop(_resize(prediction, x.shape[2:]), size)

        if not self.training:  # interpolation is linear: the mean may be taken first
            return enlarge(torch.stack(refined).mean(0))
        coarse = [head(scale) for head, scale in zip(self.coarse_heads, scales, strict=True)]
        fine = tuple(map(enlarge, refined))
        (inputs1, latent1, out1), (inputs2, latent2, out2) = kept1, kept2
        return GuidedOutputs(
            torch.stack(fine).mean(0),
            tuple(map(enlarge, coarse)),
            fine,
            (latent1, latent2),
            (inputs1, inputs2),
            (out1, out2),
        )

    def loss(
        self, outputs: GuidedOutputs, target: Tensor, criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    ) -> Tensor:
        """Sum of the criterion over all eight predictions, plus the guided and the reconstruction loss (section III-D).

        Parameters
        ----------
        outputs
            Of a forward pass in training.
        target
            Class indices `(n, h, w)`.
        criterion
            Takes logits and target, gives a scalar; cross-entropy by default.
        """
        supervised = torch.stack([criterion(logits, target) for logits in (*outputs.coarse, *outputs.refined)]).sum()
        guided = F.mse_loss(*outputs.latents)  # a mean over the scales; the paper sums them
        reconstruction = sum(map(F.mse_loss, outputs.inputs, outputs.reconstructions), supervised.new_zeros(()))
        return supervised + len(SCALES) * (0.25 * guided + 0.1 * reconstruction)

    def attention_sources(self) -> dict[AttentionSource, Recorder]:
        """Position, channel and guided attention of each step and scale, all at a quarter of the image."""
        sources: dict[AttentionSource, Recorder] = {}
        for number, step in ((1, self.first), (2, self.second)):
            for scale, recorders in zip(SCALES, step.recorders(), strict=True):
                for (name, kind), module in zip(RECORDED.items(), recorders, strict=True):
                    sources[AttentionSource(f"step{number}.scale{scale}.{name}", kind, 1, 2)] = module
        return sources

    def _pad(self, x: Tensor) -> Tensor:
        """Repeat the border up to multiples; a lone image in training to 64 at least, batch norm needs two values."""
        x = pad_to_multiple(x, self.multiple)
        alone = self.training and len(x) == 1 and x.shape[2:] == (self.multiple, self.multiple)
        return F.pad(x, (0, self.multiple, 0, 0), mode="replicate") if alone else x


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return x if x.shape[2:] == tuple(size) else F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


@register(
    "guided-attention",
    title="Multi-scale guided attention",
    spatial_dims=(2,),
    multiple=32,
    paper=PAPER,
    attention="places to places and channels to channels at four scales in two steps, and the guided maps made of them",
    small={"width": 16, "stem": 8, "blocks": (1, 2, 2, 1), "groups": 4, "base_width": 32},
    published={"num_classes": 5, "width": 64, "stem": 64, "blocks": (3, 4, 23, 3), "groups": 32, "base_width": 8},
)
def guided_attention(
    in_channels: int = 1,
    num_classes: int = 2,
    width: int = 32,
    backbone: str = "resnext",
    stem: int = 32,
    blocks: Sequence[int] = (2, 2, 4, 2),
    groups: int = 8,
    base_width: int = 16,
) -> GuidedAttentionNet:
    """Multi-scale guided attention: 8.8 million parameters at the defaults, 103.6 million as published.

    Parameters
    ----------
    in_channels, num_classes, width
        As in `GuidedAttentionNet`.
    backbone
        `"resnext"`, whose layout `stem`, `blocks`, `groups` and `base_width` give, or `"timm:<name>"`.
    stem, blocks, groups, base_width
        As in `ResNeXt`.

    Raises
    ------
    ValueError
        If the backbone is unknown or an option does not fit.
    """
    kind, _, name = backbone.partition(":")
    if backbone != "resnext" and (kind != "timm" or not name):
        raise ValueError(f"backbone must be 'resnext' or 'timm:<name>', not {backbone!r}")
    encoder = (
        TimmFeatures(name, in_channels)
        if name
        else ResNeXt(in_channels, stem=stem, blocks=blocks, groups=groups, base_width=base_width)
    )
    return GuidedAttentionNet(encoder, in_channels=in_channels, num_classes=num_classes, width=width)
