"""Batch normalisation that folds into the convolution before it, and keeps statistics by patch where a network asks for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation over channels of `(n, c, h, w)` with optional statistics by patch.

    Parameters
    ----------
    channels
        Number of channels `c`.
    groups
        The batch holds `groups` patches a sample, sample by sample. In training each patch position is normalised by its
        own statistics, and the running statistics move as if the patches had passed one after the other, so that one
        batched pass equals a loop over the patches.
    """

    def __init__(self, channels: int, *, groups: int = 1) -> None:
        super().__init__(channels)
        self.groups = groups

    def scale_shift(self) -> tuple[Tensor, Tensor]:
        """The affine map `(c,), (c,)` that this layer is when its running statistics are used."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name the base class gives it)
        """Normalise `(n, c, h, w)`; in training `n` must be a multiple of `groups`.

        A group with one value a channel has no spread: it is normalised by the running statistics, which stay as they are.
        """
        if not self.training or input.numel() == self.groups * input.shape[1]:
            scale, shift = self.scale_shift()
            return torch.addcmul(shift[:, None, None], input, scale[:, None, None])
        n, c, h, w = input.shape
        groups = self.groups
        mean, var = input.new_zeros(groups * c), input.new_ones(groups * c)
        out = F.batch_norm(
            input.contiguous().view(n // groups, groups * c, h, w),
            mean,
            var,
            self.weight.repeat(groups),
            self.bias.repeat(groups),
            training=True,
            momentum=1.0,
            eps=self.eps,
        )
        self.update_running(mean.view(groups, c), var.view(groups, c))
        return out.view(n, c, h, w)

    @torch.no_grad()
    def update_running(self, means: Tensor, variances: Tensor) -> None:
        """Move the running statistics by `(groups, c)` means and unbiased variances, one group after the other."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        groups = means.shape[0]
        seen = self.num_batches_tracked
        if self.momentum is None:  # cumulative average
            total = (seen + groups).to(means.dtype)
            kept, weights = seen / total, means.new_ones(groups) / total
        else:
            kept = torch.tensor((1.0 - self.momentum) ** groups, dtype=means.dtype, device=means.device)
            powers = torch.arange(groups - 1, -1, -1, dtype=means.dtype, device=means.device)
            weights = self.momentum * (1.0 - self.momentum) ** powers
        self.running_mean.mul_(kept).add_(weights @ means)
        self.running_var.mul_(kept).add_(weights @ variances)
        seen.add_(groups)


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: BatchNorm) -> Tensor:
    """A convolution without bias and its batch norm, as one convolution where running statistics are used."""
    if norm.training:
        out: Tensor = norm(conv(x))
        return out
    scale, shift = norm.scale_shift()
    return F.conv2d(x, conv.weight * scale[:, None, None, None], shift, conv.stride, conv.padding)
