"""The inner part of axial attention with positions, forward and backward, a few lines at a time.

The logits of all lines together are far larger than the processor's cache (33 MB for one layer at 128 x 128 and batch 4), and
moving them is what costs. Lines are therefore taken in chunks that stay in the cache, from logits to values, and the backward
pass builds the attention again instead of having stored it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = {"cpu": 2**19}  # logits in work at once: 2 MB of float32
CHUNK_ELEMENTS_GPU = 2**27


class PositionalAttention(torch.autograd.Function):
    """Softmax attention of many short lines with position tables shared by all.

    For every line `m`, `logits[i, j] = qc_i . kc_j + qp_i . eq[:, i, j] + kp_j . ek[:, i, j]`.

    Inputs
    ------
    qc, qp
        Queries scaled for the content and for the position term, `(m, K, c)`.
    kc, kp
        Keys likewise, `(m, c, K)`.
    v
        Values `(m, K, d)`.
    eq, ek, ev
        Tables `(c, K, K)`, `(c, K, K)` and `(d, K, K)`, entry `[channel, i, j]`.

    Returns
    -------
    (m, K, d), (K, m, d)
        `sum_j A[i, j] v_j` and, position first, `sum_j A[i, j] ev[:, i, j]`.
    """

    @staticmethod
    def forward(
        ctx: Any, qc: Tensor, qp: Tensor, kc: Tensor, kp: Tensor, v: Tensor, eq: Tensor, ek: Tensor, ev: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attend, chunk by chunk; see the class."""
        lines, length, _ = qc.shape
        content = torch.empty_like(v)
        position = v.new_empty(length, lines, v.shape[-1])
        ev_by_row = ev.permute(1, 2, 0).contiguous()
        for part in _chunks(qc):
            attention = _logits(qc[part], qp[part], kc[part], kp[part], eq, ek).softmax(-1)
            content[part] = torch.bmm(attention, v[part])
            position[:, part] = torch.bmm(attention.transpose(0, 1), ev_by_row)
        ctx.save_for_backward(qc, qp, kc, kp, v, eq, ek, ev)
        return content, position

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_content: Tensor, grad_position: Tensor) -> tuple[Tensor, ...]:
        """Gradients of all inputs, with the attention of every chunk built anew."""
        qc, qp, kc, kp, v, eq, ek, ev = ctx.saved_tensors
        grad_qc, grad_qp, grad_kc, grad_kp, grad_v = (torch.empty_like(t) for t in (qc, qp, kc, kp, v))
        # The tables of queries and values are summed by row i, as batched products give them.
        grad_eq, grad_ev = (t.new_zeros(t.shape[1], t.shape[0], t.shape[2]) for t in (eq, ev))
        grad_ek = torch.zeros_like(ek)
        eq_by_row, ev_by_row = eq.permute(1, 2, 0).contiguous(), ev.permute(1, 0, 2).contiguous()
        for part in _chunks(qc):
            attention = _logits(qc[part], qp[part], kc[part], kp[part], eq, ek).softmax(-1)
            from_content, from_position = grad_content[part].contiguous(), grad_position[:, part]
            grad_v[part] = torch.bmm(attention.transpose(1, 2), from_content)
            grad_ev.baddbmm_(from_position.transpose(1, 2), attention.transpose(0, 1))
            grad = torch.bmm(from_content, v[part].transpose(1, 2))
            grad += torch.bmm(from_position, ev_by_row).transpose(0, 1)
            # Softmax: A * (g - sum_j A g)
            grad -= torch.einsum("mij,mij->mi", grad, attention)[..., None]
            grad *= attention
            by_row = grad.transpose(0, 1)
            grad_qc[part] = torch.bmm(grad, kc[part].transpose(1, 2))
            grad_kc[part] = torch.bmm(qc[part].transpose(1, 2), grad)
            grad_qp[part] = torch.bmm(by_row, eq_by_row).transpose(0, 1)
            grad_eq.baddbmm_(qp[part].permute(1, 2, 0), by_row)
            for channel in range(ek.shape[0]):
                grad_kp[part, channel] = (grad * ek[channel]).sum(1)
                grad_ek[channel] += (grad * kp[part, channel : channel + 1]).sum(0)
        return grad_qc, grad_qp, grad_kc, grad_kp, grad_v, grad_eq.transpose(0, 1), grad_ek, grad_ev.transpose(0, 1)


def _chunks(q: Tensor) -> list[slice]:
    lines, length, _ = q.shape
    step = max(1, CHUNK_ELEMENTS.get(q.device.type, CHUNK_ELEMENTS_GPU) // length**2)
    return [slice(start, min(start + step, lines)) for start in range(0, lines, step)]


def _logits(qc: Tensor, qp: Tensor, kc: Tensor, kp: Tensor, eq: Tensor, ek: Tensor) -> Tensor:
    channels = qc.shape[-1]
    if channels <= 2:  # outer products beat a matrix product of inner size 1 or 2
        logits = qc[:, :, :1] * kc[:, :1]
        if channels == 2:
            logits.addcmul_(qc[:, :, 1:], kc[:, 1:])
    else:
        logits = torch.bmm(qc, kc)
    for channel in range(channels):
        logits.addcmul_(qp[:, :, channel, None], eq[channel])
        logits.addcmul_(kp[:, channel, None, :], ek[channel])
    return logits
