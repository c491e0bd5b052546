"""Our windows beside MONAI's `sliding_window_inference` on the same volume, each in a fresh process, in turn; 14 classes.

python -m benchmarks.inference_monai
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil
import torch
from rich.console import Console
from rich.table import Table

from napari_medt.core import Volume
from napari_medt.engine import predict
from napari_medt.zoo.card import Intensity, ModelCard
from napari_medt.zoo.model import Model

CLASSES = 14
WINDOW = (64, 64, 64)
SIDE_BY_SIDE = (192, 192, 192)
REPEATS = 3
SIDES = (64, 128, 256, 384, 512)
MONAI_UP_TO = 256  # beyond, it wants more memory than many computers have


class Measured(NamedTuple):
    """Of one process: seconds of its fastest run, megabytes at the peak beyond those before, the labels' sum as a check."""

    seconds: float
    megabytes: float
    check: int


class Cheap(torch.nn.Module):
    """Hardly a network, so that what is around it is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-3, 3, CLASSES).view(1, -1, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


def unet() -> torch.nn.Module:
    """A small U-Net."""
    from monai.networks.nets import UNet

    return UNet(3, 1, CLASSES, channels=(8, 16, 32), strides=(2, 2), num_res_units=1)


NETS: dict[str, Callable[[], torch.nn.Module]] = {"cheap": Cheap, "u-net": unet}


def ours(net: torch.nn.Module, image: npt.NDArray[np.float32], overlap: float) -> npt.NDArray[np.uint8]:
    card = ModelCard(
        name="bench",
        title="Bench",
        architecture="none",
        net_options={},
        classes=tuple(f"class {number}" for number in range(CLASSES)),
        channels="grey",
        spatial_dims=3,
        window=WINDOW,
        intensity=Intensity(kind="none"),
    )
    model = Model(card, net, torch.device("cpu"))
    return predict(model, Volume.from_array(image, rgb=False), overlap=overlap, batch=1).labels


def monai(net: torch.nn.Module, image: npt.NDArray[np.float32], overlap: float) -> npt.NDArray[np.uint8]:
    from monai.inferers import sliding_window_inference

    with torch.inference_mode():
        found = sliding_window_inference(
            torch.from_numpy(image)[None, None],
            WINDOW,
            1,
            lambda x: net(x).softmax(1),
            overlap=overlap,
            mode="gaussian",
        )
        return found.argmax(1)[0].to(torch.uint8).numpy()


def measure(run: str, net: str, shape: tuple[int, int, int], overlap: float, repeats: int = 1) -> Measured:
    """Runs in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = NETS[net]().eval()
    function: Callable[..., Any] = {"ours": ours, "monai": monai}[run]
    image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    function(network, image[: WINDOW[0], : WINDOW[1], : WINDOW[2]].copy(), overlap)  # a warm-up
    before = psutil.Process().memory_info().rss
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        labels = function(network, image, overlap)
        times.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Measured(min(times), (peak - before) / 2**20, int(labels.sum(dtype=np.int64)))


def apart(*task: Any) -> Measured:
    """Runs in a fresh process, so that its memory can be told."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: Measured = pool.apply(measure, task)
    return found


def side_by_side(net: str, overlap: float = 0.5) -> tuple[Measured, Measured]:
    """MONAI and ours, in turn; the fastest of each counts, since other programs only make runs slower."""
    found: dict[str, list[Measured]] = {"monai": [], "ours": []}
    for run in ("monai", "ours", "monai", "ours"):
        found[run].append(apart(run, net, SIDE_BY_SIDE, overlap, REPEATS if net == "cheap" else 1))
    theirs, own = (min(runs) for runs in found.values())
    return theirs, own


class Inference:
    """For asv: ratios of ours to MONAI's, smaller is better."""

    params = (tuple(NETS),)
    param_names = ("net",)
    timeout = 600
    unit = "of MONAI's"

    def track_time(self, net: str) -> float:
        theirs, own = side_by_side(net)
        return own.seconds / theirs.seconds

    def track_memory(self, net: str) -> float:
        theirs, own = side_by_side(net)
        return own.megabytes / theirs.megabytes


def main() -> None:
    console = Console()
    table = Table(
        "net", "run", "s", "Mvoxel/s", "peak MB", "time", "memory", title=f"{SIDE_BY_SIDE} voxels, {CLASSES} classes"
    )
    voxels = float(np.prod(SIDE_BY_SIDE)) / 1e6
    for net in NETS:
        theirs, own = side_by_side(net)
        for name, found in (("MONAI", theirs), ("ours", own)):
            ratios = (f"{found.seconds / theirs.seconds:.2f}", f"{found.megabytes / theirs.megabytes:.2f}")
            table.add_row(
                net, name, f"{found.seconds:.2f}", f"{voxels / found.seconds:.2f}", f"{found.megabytes:.0f}", *ratios
            )
    console.print(table)
    curve = Table("side", "ours, MB", "ours, MB beside labels", "MONAI, MB", title="Memory against size, overlap 0.25")
    for side in SIDES:
        own = apart("ours", "cheap", (side,) * 3, 0.25)
        theirs_mb = f"{apart('monai', 'cheap', (side,) * 3, 0.25).megabytes:.0f}" if side <= MONAI_UP_TO else "-"
        curve.add_row(str(side), f"{own.megabytes:.0f}", f"{own.megabytes - side**3 / 2**20:.0f}", theirs_mb)
    console.print(curve)


if __name__ == "__main__":
    main()
