"""How much faster our Medical Transformer family is than its plain form, both measured in the same run.

python -m benchmarks.medt_speed
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from benchmarks.plain.medt import Plain
from napari_medt.nets import create_net

NETS = ("axial-unet", "gated-axial-unet", "logo", "medt")


def evaluation(net: torch.nn.Module, x: torch.Tensor) -> Callable[[], object]:
    """One prediction."""
    net.eval()

    def run() -> object:
        with torch.inference_mode():
            return net(x)

    return run


def training_step(net: torch.nn.Module, x: torch.Tensor) -> Callable[[], object]:
    """One forward and backward pass."""
    net.train()
    target = (x[:, 0] > 0.5).long()

    def run() -> object:
        net.zero_grad()
        loss = F.cross_entropy(net(x), target)
        loss.backward()
        return loss

    return run


def ratio(name: str, make: Callable[..., Callable[[], object]], batch: int, repeats: int) -> tuple[float, float, float]:
    """Median seconds of the plain form and of ours, taken in turn, and their ratio."""
    torch.manual_seed(0)
    net = create_net(name)
    x = torch.rand(batch, 3, 128, 128)
    plain, ours = make(Plain(net), x), make(net, x)
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for run, kept in zip((plain, ours), times, strict=True):
            start = time.perf_counter()
            run()
            if repeat:  # the first is a warm-up
                kept.append(time.perf_counter() - start)
    slow, fast = (statistics.median(kept) for kept in times)
    return slow, fast, slow / fast


class MedtSpeed:
    """For asv: the ratios, larger is better."""

    params = (NETS,)
    param_names = ("net",)
    unit = "times faster than the plain form"
    timeout = 300

    def track_evaluation(self, name: str) -> float:
        """Prediction of one 128 x 128 image."""
        return ratio(name, evaluation, 1, 7)[2]

    def track_training_step(self, name: str) -> float:
        """Forward and backward pass of a batch of four."""
        return ratio(name, training_step, 4, 3)[2]


def main() -> None:
    """Print the table."""
    table = Table(
        "network", "what", "plain, s", "ours, s", "times faster", title=f"128 x 128, {torch.get_num_threads()} threads"
    )
    for name in NETS:
        for what, make, batch, repeats in (
            ("evaluation, batch 1", evaluation, 1, 7),
            ("training step, batch 4", training_step, 4, 3),
        ):
            slow, fast, times = ratio(name, make, batch, repeats)
            table.add_row(name, what, f"{slow:.3f}", f"{fast:.3f}", f"{times:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
