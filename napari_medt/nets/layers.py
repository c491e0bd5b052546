"""What the convolutional networks share: layers by the number of axes, and input of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Axes = tuple[int, ...]  # one number an axis of the image
Strides = Sequence[int | Sequence[int]] | None
Norm = Literal["batch", "instance"]
CONV: dict[int, Callable[..., nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOL: dict[int, Callable[..., nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
LINEAR = {2: "bilinear", 3: "trilinear"}


def per_axis(value: int | Sequence[int], dims: int, *, name: str = "stride") -> Axes:
    """One number an axis, given as one for all or as such.

    Raises
    ------
    ValueError
        If their number is not that of the axes, or one is below 1.
    """
    axes = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(axes) != dims or min(axes) < 1:
        raise ValueError(f"{name} must be one positive number or {dims} of them, not {value}")
    return axes


def pad_to_multiple(x: Tensor, multiple: int | Axes) -> Tensor:
    """Repeat the last values of every axis of `(n, c, *size)` until its size is a multiple."""
    size = x.shape[2:]
    after = [-length % m for length, m in zip(size, per_axis(multiple, len(size)), strict=True)]
    return F.pad(x, [n for more in reversed(after) for n in (0, more)], mode="replicate") if any(after) else x


def crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` places of `(n, c, ...)`."""
    return x[(slice(None), slice(None), *(slice(length) for length in size))]


def with_background(logits: Tensor) -> Tensor:
    """`(n, classes, *size)`; a single logit gets a background of 0 beside it, so that their softmax is its sigmoid."""
    return torch.cat((torch.zeros_like(logits), logits), 1) if logits.shape[1] == 1 else logits


def level_strides(strides: Strides, levels: int, dims: int, default: int | Axes = 2) -> tuple[Axes, ...]:
    """The stride of every axis at every level below the first.

    Raises
    ------
    ValueError
        If their number fits neither the levels nor the axes.
    """
    given = [default] * levels if strides is None else list(strides)
    if len(given) != levels:
        raise ValueError(f"{levels + 1} levels need {levels} strides, not {len(given)}")
    return tuple(per_axis(stride, dims) for stride in given)


def total_stride(strides: Sequence[Axes]) -> int | Axes:
    """What the size must be a multiple of: a number, or one an axis where they differ."""
    totals = tuple(prod(axis) for axis in zip(*strides, strict=True))
    return totals[0] if len(set(totals)) == 1 else totals


class BatchNormNd(_BatchNorm):
    """Batch normalisation of `(n, c, *size)`; where a channel has one value only, training uses the running statistics."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name the base class gives it)
        """Normalise channel by channel."""
        if self.training and input.numel() == input.shape[1]:  # no spread to normalise by
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        pass  # any number of axes


class InstanceNormNd(nn.Module):
    """Instance normalisation with scale and shift of `(n, c, *size)`; one place alone becomes the shift (torch's raises)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each sample."""
        return torch.instance_norm(x, self.weight, self.bias, None, None, True, 0.0, 1e-5, False)


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Batch or instance normalisation."""
    if norm not in ("batch", "instance"):
        raise ValueError(f"norm must be 'batch' or 'instance', not {norm!r}")
    return BatchNormNd(channels) if norm == "batch" else InstanceNormNd(channels)


def conv_norm_relu(
    dims: int, channels: int, width: int, kernel: int | Axes = 3, stride: int | Axes = 1, norm: Norm = "batch"
) -> list[nn.Module]:
    """A convolution that keeps the size at stride 1, norm, ReLU."""
    kernel = per_axis(kernel, dims)
    conv = CONV[dims](channels, width, kernel, stride, padding=tuple(k // 2 for k in kernel))
    return [conv, norm_layer(norm, width), nn.ReLU(inplace=True)]


def double_conv(
    dims: int, channels: int, width: int, kernel: int | Axes = 3, stride: int | Axes = 1, norm: Norm = "batch"
) -> nn.Sequential:
    """Two convolutions with norm and ReLU, the first with the stride: `(n, channels, *size)` to `(n, width, ...)`."""
    return nn.Sequential(
        *conv_norm_relu(dims, channels, width, kernel, stride, norm),
        *conv_norm_relu(dims, width, width, kernel, norm=norm),
    )
