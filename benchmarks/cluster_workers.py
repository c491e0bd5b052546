"""One worker process against two, each with one thread: seconds for one scan, and how many times faster two are.

    python -m benchmarks.cluster_workers [--size 160] [--repeats 3]

Scheduler and workers are real processes on this computer, which needs a free core for each worker.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from napari_medt.engine import predict
from napari_medt.engine.cluster import Cluster
from napari_medt.engine.parcels import cut, windows_in
from napari_medt.engine.running import set_up
from napari_medt.nets import create_net
from napari_medt.zoo import Intensity, Model, ModelCard
from tests.dask_processes import cluster_of

WINDOW = (64, 64, 64)


def make_model() -> Model:
    torch.manual_seed(0)
    options = {"spatial_dims": 3, "in_channels": 1, "num_classes": 2, "channels": [8, 16, 32]}
    card = ModelCard(
        name="benchmark",
        title="U-Net",
        architecture="unet",
        net_options=options,
        classes=("background", "thing"),
        channels="grey",
        spatial_dims=3,
        window=WINDOW,
        intensity=Intensity(kind="percentile"),
    )
    return Model(card, create_net("unet", **options).eval(), torch.device("cpu"))


def best_seconds(model: Model, image: np.ndarray, workers: int, repeats: int) -> float:
    """The least of several runs, after one that brings the model to every worker."""
    with tempfile.TemporaryDirectory() as folder, cluster_of(workers, Path(folder)) as processes:  # noqa: SIM117
        with Cluster(processes.address) as cluster:
            times = []
            for _ in range(1 + repeats):
                began = time.perf_counter()
                predict(model, image, compute=cluster)
                times.append(time.perf_counter() - began)
    return min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, shape = make_model(), (given.size,) * 3
    image = np.random.default_rng(0).integers(0, 4000, shape, dtype=np.uint16)
    task = set_up(model, image)
    began = time.perf_counter()
    predict(model, image)
    print(f"{given.size} cubed, {windows_in(task, task.box)} windows of {WINDOW[0]} cubed")
    print(f"this process  {time.perf_counter() - began:6.1f} s")
    seconds = {}
    for workers in (1, 2):
        seconds[workers] = best_seconds(model, image, workers, given.repeats)
        blocks = cut(task, workers)
        windows = sum(windows_in(task, block) for block in blocks)
        print(
            f"{workers} worker{'s' * (workers > 1):1s}     {seconds[workers]:6.1f} s   {len(blocks)} blocks, {windows} windows"
        )
    print(f"two are {seconds[1] / seconds[2]:.2f} times as fast as one")


if __name__ == "__main__":
    main()
