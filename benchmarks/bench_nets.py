"""Every network against its plain form in the same run: parameters, operations, time and peak memory.

python -m benchmarks.bench_nets [--preset small] [--device cuda] [NAME ...]

The plain form of the Medical Transformer family loops over patches and stacks its logits; that of the others writes out the
softmax of their attention. MONAI's networks are their own plain form. Each form is measured in a process of its own, so that
its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from napari_medt.core import BadModel
from napari_medt.nets import create_net, list_nets

SIZES = {2: (256, 256), 3: (64, 64, 64)}
PLAIN = {
    "attention-unet": "attention_unet",
    "fine": "fine",
    "glam": "fine",
    "guided-attention": "guided_attention",
    "u-transformer": "u_transformer",
    "unetr": "unetr",
    **dict.fromkeys(("axial-unet", "gated-axial-unet", "logo", "medt"), "medt"),
}
REPEATS = {"forward": 5, "training step": 3}


def build(name: str, dims: int, preset: str, form: str) -> nn.Module:
    """The network with seeded weights, or its plain form with the same."""
    info = next(info for info in list_nets() if info.name == name)
    options: dict[str, Any] = {"spatial_dims": dims} if "spatial_dims" in info.defaults else {}
    torch.manual_seed(0)
    net = create_net(name, preset=preset, **(info.presets[preset] | options))  # type: ignore[arg-type]
    if form == "plain":
        plain: Callable[[nn.Module], nn.Module] = import_module(f"benchmarks.plain.{PLAIN[name]}").plain
        net = plain(net)
    return net


def measure(name: str, dims: int, preset: str, form: str, device: str) -> dict[str, float]:
    """Seconds, gigaflops of a forward pass, parameters, and the peak memory of both passes above the loaded network, in MB."""
    net = build(name, dims, preset, form).to(device)
    info = next(info for info in list_nets() if info.name == name)
    channels = info.presets[preset].get("in_channels", info.defaults["in_channels"])  # type: ignore[call-overload]
    x = torch.rand(1 if dims == 3 else 2, channels, *SIZES[dims], device=device)
    target = (x[:, 0] > 0.5).long()

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    def forward() -> object:
        with torch.inference_mode():
            return net.eval()(x)

    def step() -> object:
        net.train().zero_grad()
        outputs = net(x)
        logits = outputs if isinstance(outputs, torch.Tensor) else outputs.logits
        loss = F.cross_entropy(logits, target)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    found: dict[str, float] = {"parameters": sum(p.numel() for p in net.parameters())}
    loaded = memory(device)
    for what, run in (("forward", forward), ("training step", step)):
        times = []
        for repeat in range(REPEATS[what] + 1):
            start = time.perf_counter()
            run()
            wait()
            if repeat:  # the first is a warm-up
                times.append(time.perf_counter() - start)
        found[what] = statistics.median(times)
        found[f"{what} MB"] = memory(device) - loaded
    net.requires_grad_(False)  # the counter looks for gradients of every tensor that has some, also in inference
    with FlopCounterMode(display=False) as counter:
        forward()
    found["gigaflops"] = counter.get_total_flops() / 1e9
    return found


def memory(device: str) -> float:
    """Peak memory so far, MB."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def apart(*arguments: object) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_nets", "--measure", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise BadModel(ended.stderr.strip().splitlines()[-1] if ended.stderr else f"ended with {ended.returncode}")
    answer: dict[str, float] = json.loads(ended.stdout)
    return answer


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--preset", default="standard", choices=("small", "standard", "paper"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, dims, preset, form, device = options.measure
        sys.stdout.write(json.dumps(measure(name, int(dims), preset, form, device)))
        return
    table = Table(
        title=f"{options.preset} preset, {options.device}, {torch.get_num_threads()} threads; in brackets: times better than plain"
    )
    for column in (
        "network",
        "input",
        "million parameters",
        "gigaflops",
        "forward, s",
        "step, s",
        "forward, MB",
        "step, MB",
    ):
        table.add_column(column)
    for info in list_nets():
        for dims in info.spatial_dims:
            if options.names and info.name not in options.names:
                continue
            shared = (info.name, dims, options.preset)
            try:
                ours = apart(*shared, "ours", options.device)
                plain = apart(*shared, "plain", options.device) if info.name in PLAIN else {}
            except BadModel as error:
                table.add_row(info.name, f"{dims}D", str(error))
                continue
            cells = [f"{ours['parameters'] / 1e6:.2f}", f"{ours['gigaflops']:.1f}"]
            for what, form in (
                ("forward", "{:.3f}"),
                ("training step", "{:.3f}"),
                ("forward MB", "{:.0f}"),
                ("training step MB", "{:.0f}"),
            ):
                better = f" ({plain[what] / max(ours[what], 1e-9):.1f}x)" if plain else ""
                cells.append(form.format(ours[what]) + better)
            table.add_row(info.name, " x ".join(map(str, SIZES[dims])), *cells)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
