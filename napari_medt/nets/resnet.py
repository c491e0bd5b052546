"""Residual encoders: features at a quarter, an eighth, a sixteenth and a thirty-second of the image.

Sources: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016; Xie, Girshick, Dollar, Tu, He,
"Aggregated Residual Transformations for Deep Neural Networks" (ResNeXt), CVPR 2017, table 1. Parameters bear the names they
have in torchvision, so a state dict of its ResNeXt loads (but for the classifier `fc`).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.core import BadModel

REDUCTIONS = (4, 8, 16, 32)
EXPANSION = 4


class Bottleneck(nn.Module):
    """A 1 x 1, a grouped 3 x 3 and a 1 x 1 convolution around an identity: `(n, c, h, w)` to `(n, 4 * planes, h', w')`.

    Parameters
    ----------
    in_channels, planes
        Channels that come in; a quarter of those that go out.
    stride
        Of the 3 x 3 convolution and of the shortcut.
    groups, base_width
        The 3 x 3 convolution has `groups` groups, `base_width` channels each in the stage of 64 planes and in proportion
        in the others.
    """

    def __init__(self, in_channels: int, planes: int, *, stride: int, groups: int, base_width: int) -> None:
        super().__init__()
        width, out_channels = planes * base_width // 64 * groups, EXPANSION * planes
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the next depth, after the rectifier."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn3(self.conv3(out)) + shortcut)


class ResNeXt(nn.Module):
    """ResNeXt without its classifier.

    Parameters
    ----------
    in_channels
        Channels of the image.
    stem
        Channels after the first convolution; the stages give 4, 8, 16 and 32 times as many.
    blocks
        Blocks of each of the four stages.
    groups, base_width
        As in the name: ResNeXt-101 32x8d has 32 groups of base width 8, and `stem=64`, `blocks=(3, 4, 23, 3)`.

    Raises
    ------
    ValueError
        If there are not four stages, or a group would be left without a channel.
    """

    def __init__(
        self, in_channels: int, *, stem: int, blocks: Sequence[int], groups: int = 32, base_width: int = 8
    ) -> None:
        super().__init__()
        if len(blocks) != len(REDUCTIONS) or min(blocks) < 1:
            raise ValueError(f"the encoder has four stages of at least one block, not {tuple(blocks)}")
        if stem * base_width < 64:
            raise ValueError(f"a stem of {stem} channels leaves groups of base width {base_width} without a channel")
        self.conv1 = nn.Conv2d(in_channels, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.channels = tuple(EXPANSION * stem << stage for stage in range(4))
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(
                *(
                    Bottleneck(
                        (stem if stage == 0 else self.channels[stage - 1]) if block == 0 else self.channels[stage],
                        stem << stage,
                        stride=2 if stage and block == 0 else 1,
                        groups=groups,
                        base_width=base_width,
                    )
                    for block in range(count)
                )
            )
            for stage, count in enumerate(blocks)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(n, in_channels, h, w)` to four features, finest first: `(n, channels[i], h / 4, w / 4)`, `h / 8`, ..."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features


class TimmFeatures(nn.Module):
    """The stages of a convolutional network of timm, with fresh weights, as an encoder.

    Parameters
    ----------
    name
        One of `timm.list_models()`, for example `"resnet34"`.
    in_channels
        Channels of the image.

    Raises
    ------
    BadModel
        If timm is not installed, does not know the name, or the network has no features at 1/4, 1/8, 1/16 and 1/32.
    """

    def __init__(self, name: str, in_channels: int) -> None:
        super().__init__()
        try:
            timm: Any = importlib.import_module("timm")
        except (ImportError, RuntimeError) as error:  # a torchvision that does not fit torch raises RuntimeError
            raise BadModel(
                f"The encoder timm:{name} needs timm, which cannot be imported ({error})",
                remedy="install it with: pip install timm",
            ) from error
        try:
            self.model: nn.Module = timm.create_model(name, features_only=True, in_chans=in_channels)
        except (RuntimeError, ValueError, AttributeError) as error:
            raise BadModel(
                f"timm cannot make an encoder of {name!r} ({error})", remedy="choose one of timm.list_models()"
            ) from error
        info: Any = self.model.feature_info
        reductions = list(info.reduction())
        if not set(REDUCTIONS) <= set(reductions):
            raise BadModel(
                f"{name} of timm gives features at 1/{', 1/'.join(map(str, reductions))}, not at 1/4, 1/8, 1/16 and 1/32",
                remedy="choose a convolutional network with four stages, for example timm:resnet34",
            )
        self.levels = tuple(reductions.index(reduction) for reduction in REDUCTIONS)
        self.channels = tuple(info.channels()[level] for level in self.levels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(n, in_channels, h, w)` to four features, finest first."""
        features = self.model(x)
        return [features[level] for level in self.levels]
