"""Axial attention along rows and columns with relative positions, gated or not.

Source: Valanarasu, Oza, Hacihaliloglu, Patel, "Medical Transformer: Gated Axial-Attention for Medical Image
Segmentation", MICCAI 2021, equations 1 to 3, after Wang et al., "Axial-DeepLab", ECCV 2020.

For one line of `K` positions, head by head, with `c` channels of query and key and `2c` of value,

    logits[i, j] = BN(q_i . k_j) + BN(G_Q q_i . Eq[i, j]) + BN(G_K k_j . Ek[j, i])
    out[i]       = BN(G_V1 sum_j A[i, j] v_j) + BN(G_V2 sum_j A[i, j] Ev[i, j]),        A = softmax over j

There is no division by the square root of `c`. A batch norm over logits is an affine map whose scale can be known before
the logits exist: from running statistics in evaluation, from Gram matrices of q, k and the tables in training. The three
terms are therefore summed at once, and the stacked logits of `3 x heads x K x K` a line are never formed. The shift of that
affine map is the same for all `j`, so the softmax removes it.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.axial_kernel import PositionalAttention
from napari_medt.nets.axial_states import AxialState
from napari_medt.nets.capture import Recorder
from napari_medt.nets.norm import BatchNorm, conv_norm

HEADS = 8
Kind = Literal["axial", "gated", "content"]


class AxialAttention(Recorder):
    """Self-attention of every column (`axis="height"`) or every row (`axis="width"`) of `(n, C, H, W)`.

    Parameters
    ----------
    channels
        `C`, a multiple of 16: eight heads with at least one channel of query and key each.
    length
        Number of positions the tables are made for. Lines of another length use tables interpolated along the offset.
    axis
        `"height"` or `"width"`.
    kind
        `"axial"` with positions, `"gated"` with positions and four learnt scalars, `"content"` without positions.
    groups
        See `BatchNorm`.
    """

    def __init__(self, channels: int, length: int, *, axis: str, kind: Kind = "axial", groups: int = 1) -> None:
        super().__init__()
        if channels % (2 * HEADS):
            raise ValueError(f"axial attention needs a multiple of {2 * HEADS} channels, not {channels}")
        self.channels, self.length, self.axis, self.kind, self.heads = channels, length, axis, kind, HEADS
        self.value_channels = channels // HEADS
        self.key_channels = channels // HEADS // 2
        self.qkv = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.qkv_norm = BatchNorm(2 * channels, groups=groups)
        positional = kind != "content"
        self.logits_norm = BatchNorm((3 if positional else 1) * HEADS, groups=groups)
        self.logits_norm.bias.requires_grad_(False)  # softmax removes a shift, so it could not learn
        self.out_norm = BatchNorm((2 if positional else 1) * channels, groups=groups)
        nn.init.normal_(self.qkv.weight, std=channels**-0.5)
        if positional:
            table = torch.randn(2 * self.value_channels, 2 * length - 1) * self.value_channels**-0.5
            self.table = nn.Parameter(table)
        if kind == "gated":
            self.gates = nn.Parameter(torch.tensor([0.1, 0.1, 1.0, 0.1]))  # G_Q, G_K, G_V1, G_V2
        self.patches = 1

    def tables(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tables `Eq (c, K, K)`, `Ek (c, K, K)` and `Ev (2c, K, K)` for lines of `length` positions, entry `[r, i, j]`."""
        table: Tensor = self.table
        if length != self.length:
            table = F.interpolate(table[None], size=2 * length - 1, mode="linear", align_corners=True)[0]
        positions = torch.arange(length, device=table.device)
        expanded = table[:, positions[:, None] - positions[None, :] + length - 1]
        c = self.key_channels
        return expanded[:c], expanded[c : 2 * c], expanded[2 * c :]

    def forward(self, x: Tensor) -> Tensor:
        """Attend within lines; `(n, C, H, W)` in and out."""
        n, channels, h, w = x.shape
        qkv = conv_norm(x, self.qkv, self.qkv_norm).view(n, HEADS, 2 * self.value_channels, h, w)
        if self.axis == "height":
            qkv = qkv.transpose(-1, -2)
        length = qkv.shape[-1]
        c = self.key_channels
        q, k, v = torch.split(qkv, [c, c, 2 * c], dim=2)  # (n, heads, c, lines, K)
        if self.kind == "content":
            out = self._content_attention(q, k, v)
        else:
            out = self._positional_attention(q, k, v, *self.tables(length))
        if self.axis == "height":
            out = out.transpose(-1, -2)
        return out.reshape(n, channels, h, w)

    def _content_attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scales = self._logit_scales(q, k)[..., None, None, None]  # (1, n or 1, heads, 1, 1, 1)
        self._record(q, k, scales)
        logits = torch.matmul((q * scales[0]).permute(0, 1, 3, 4, 2), k.transpose(2, 3))
        content = torch.matmul(logits.softmax(-1), v.permute(0, 1, 3, 4, 2))  # (n, heads, lines, K, 2c)
        out: Tensor = self.out_norm(content.permute(0, 1, 4, 2, 3).flatten(1, 2))
        return out

    def _positional_attention(self, q: Tensor, k: Tensor, v: Tensor, eq: Tensor, ek: Tensor, ev: Tensor) -> Tensor:
        n, heads, c, lines, length = q.shape
        scales = self._logit_scales(q, k, eq, ek)[..., None, None, None]
        self._record(q, k, scales, eq, ek)
        queries = [(q * scale).permute(0, 1, 3, 4, 2).reshape(-1, length, c) for scale in scales[:2]]
        keys = [t.transpose(2, 3).reshape(-1, c, length) for t in (k, k * scales[2])]
        values = v.permute(0, 1, 3, 4, 2).reshape(-1, length, 2 * c)
        content, position = PositionalAttention.apply(  # type: ignore[no-untyped-call]
            *queries, *keys, values, eq, ek.transpose(1, 2).contiguous(), ev
        )
        content = content.view(n, heads, lines, length, 2 * c).permute(0, 1, 4, 2, 3).flatten(1, 2)
        position = position.view(length, n, heads, lines, 2 * c).permute(1, 2, 4, 3, 0).flatten(1, 2)
        if self.kind == "gated":
            content, position = content * self.gates[2], position * self.gates[3]
        return self._normalise_pair(content, position)

    def _normalise_pair(self, content: Tensor, position: Tensor) -> Tensor:
        """The batch norm of both value terms, interleaved by channel, and their sum."""
        if self.out_norm.training:
            pair = torch.stack((content, position), dim=2).flatten(1, 2)
            out: Tensor = self.out_norm(pair).unflatten(1, (self.channels, 2)).sum(2)
            return out
        scale, shift = self.out_norm.scale_shift()
        scale, shift = scale.view(-1, 2, 1, 1), shift.view(-1, 2).sum(1)[:, None, None]
        return torch.addcmul(torch.addcmul(shift, content, scale[:, 0]), position, scale[:, 1])

    def _logit_scales(self, q: Tensor, k: Tensor, eq: Tensor | None = None, ek: Tensor | None = None) -> Tensor:
        """Scale of each term of the logits, gates included: `(terms, n, heads)`, or `(terms, 1, heads)` from running statistics."""
        norm = self.logits_norm
        count = q.shape[0] // norm.groups * q.shape[-2] * q.shape[-1] ** 2
        by_batch = norm.training and count > 1  # as `BatchNorm`
        if by_batch:
            mean, variance = self._logit_statistics(q, k, eq, ek)  # (groups, terms * heads)
            norm.update_running(mean.detach().to(q.dtype), (variance * (count / (count - 1))).detach().to(q.dtype))
            scale = norm.weight * torch.rsqrt(variance + norm.eps).to(q.dtype)
        else:
            scale = norm.scale_shift()[0][None]
        scale = scale.view(scale.shape[0], -1, HEADS).transpose(0, 1)  # (terms, groups, heads)
        if self.kind == "gated":
            scale = scale * torch.cat((torch.ones_like(self.gates[:1]), self.gates[:2]))[:, None, None]
        if by_batch and norm.groups > 1:
            scale = scale.repeat(1, q.shape[0] // norm.groups, 1)
        return scale

    def _logit_statistics(self, q: Tensor, k: Tensor, eq: Tensor | None, ek: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and biased variance `(groups, terms * heads)` of the (gated) terms, in float64, from Gram matrices."""
        groups = self.logits_norm.groups
        q = torch.unflatten(q.double(), 0, (-1, groups))  # (b, p, g, c, l, i)
        k = torch.unflatten(k.double(), 0, (-1, groups))
        samples, lines, length = q.shape[0], q.shape[-2], q.shape[-1]
        count = samples * lines * length**2
        means = [torch.einsum("bpgcl,bpgcl->pg", q.sum(-1), k.sum(-1))]
        gram_q, gram_k = (torch.einsum("bpgcli,bpgdli->bpglcd", t, t) for t in (q, k))
        squares = [torch.einsum("bpglcd,bpglcd->pg", gram_q, gram_k)]
        if eq is not None and ek is not None:
            gates = self.gates.double() if self.kind == "gated" else q.new_ones(2)
            for x, table, gate in ((q, eq.double(), gates[0]), (k, ek.double(), gates[1])):
                means.append(gate * torch.einsum("bpgcli,ci->pg", x, table.sum(-1)))
                moments = torch.einsum("bpgcli,bpgdli->pgcdi", x, x)
                squares.append(gate**2 * torch.einsum("pgcdi,cij,dij->pg", moments, table, table))
        mean = torch.cat(means, dim=1) / count
        return mean, (torch.cat(squares, dim=1) / count - mean**2).clamp_min(0)

    def _record(self, q: Tensor, k: Tensor, scales: Tensor, eq: Tensor | None = None, ek: Tensor | None = None) -> None:
        if self.seen is not None:
            state = AxialState(q.clone(), k.clone(), scales[:, 0, :, 0, 0, 0], eq, ek, self.axis, self.patches)
            self.seen.append(state)


class AxialBlock(nn.Module):
    """Residual bottleneck: 1x1 conv, height attention, width attention, 1x1 conv.

    Parameters
    ----------
    in_channels
        Channels of the input.
    width
        Channels the attention works in; the block gives `2 * width`.
    size
        `(height, width)` of the input the tables are made for.
    stride
        1, or 2: average pooling by two after the width attention.
    kind, groups
        See `AxialAttention`.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        size: tuple[int, int],
        *,
        stride: int = 1,
        kind: Kind = "axial",
        groups: int = 1,
    ) -> None:
        super().__init__()
        out_channels = 2 * width
        self.stride = stride
        self.reduce = nn.Conv2d(in_channels, width, 1, bias=False)
        self.reduce_norm = BatchNorm(width, groups=groups)
        self.height = AxialAttention(width, size[0], axis="height", kind=kind, groups=groups)
        self.width = AxialAttention(width, size[1], axis="width", kind=kind, groups=groups)
        self.expand = nn.Conv2d(width, out_channels, 1, bias=False)
        self.expand_norm = BatchNorm(out_channels, groups=groups)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.shortcut_norm = BatchNorm(out_channels, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, in_channels, h, w)` to `(n, 2 * width, h / stride, w / stride)`."""
        out = F.relu(conv_norm(x, self.reduce, self.reduce_norm))
        out = self.width(self.height(out))
        if self.stride == 2:
            out = F.avg_pool2d(out, 2)
        out = conv_norm(F.relu(out), self.expand, self.expand_norm)
        return F.relu(out + (x if self.shortcut is None else conv_norm(x, self.shortcut, self.shortcut_norm)))
