"""How quickly attention answers: maps of the whole image against the prediction, a warm click against a cold one.

python -m benchmarks.pick_speed

Processor time, so that what else the computer does counts little. Random weights in the small presets: what is computed does not
depend on them. 2D images of 256 x 256 in windows of 128 x 128, 3D scans of 40 x 56 x 40, the size of a hippocampus, in windows of
32 x 48 x 32.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from napari_medt.attention import AttentionExplorer
from napari_medt.engine import predict
from napari_medt.nets import create_net, list_nets
from napari_medt.zoo import Intensity, Model, ModelCard

SHAPES = {2: ((256, 256), (128, 128)), 3: ((40, 56, 40), (32, 48, 32))}
CLICKS = 8


def seconds(run: Callable[[], object], repeats: int = 2) -> float:
    """The least processor time of a few runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def small_model(name: str, dims: int) -> Model:
    """A network of the small preset with fresh weights."""
    info = next(info for info in list_nets() if info.name == name)
    options: dict[str, object] = {"in_channels": 1, "num_classes": 2}
    if "spatial_dims" in info.defaults:
        options["spatial_dims"] = dims
    window = SHAPES[dims][1]
    if "img_size" in info.defaults:
        multiple = info.multiple
        options["img_size"] = tuple(-(-edge // multiple) * multiple for edge in window)
    torch.manual_seed(0)
    net = create_net(name, preset="small", **options).eval()
    card = ModelCard(
        name=name,
        title=info.title,
        architecture=name,
        net_options={},
        classes=("background", "object"),
        channels="grey",
        spatial_dims=2 if dims == 2 else 3,
        window=window,
        intensity=Intensity(kind="unit"),
    )
    return Model(card, net, torch.device("cpu"))


def row(model: Model, shape: tuple[int, ...]) -> list[str]:
    """The numbers of one model."""
    rng = np.random.default_rng(0)
    image = rng.random(shape, dtype=np.float32)
    plain = seconds(lambda: predict(model, image))
    explorer = AttentionExplorer(model, image)
    one = seconds(lambda: explorer.overview(explorer.sources()[0]))
    all_maps = seconds(lambda: explorer.overviews())
    query = tuple(edge // 2 for edge in shape)
    source = explorer.sources()[0]

    def cold() -> None:
        explorer.forget()
        explorer.pick(query, source=source)

    first = seconds(cold)
    explorer.warm()
    worst, times = 0.0, []
    for name in explorer.sources():
        clicks = []
        for point in rng.integers(0, shape, (CLICKS, len(shape))):
            explorer.pick(point, source=name)  # the window may have been forgotten
            clicks.append(seconds(lambda point=point, name=name: explorer.pick(point, source=name), 1))  # type: ignore[misc]
        times += clicks
        worst = max(worst, statistics.median(clicks))
    warm = statistics.median(times)
    ratios = [f"{one / plain:.2f}", f"{all_maps / plain:.2f}"]
    return [
        f"{plain:.2f}",
        *ratios,
        f"{1000 * first:.0f}",
        f"{1000 * warm:.1f}",
        f"{1000 * worst:.1f}",
        f"{first / warm:.0f}",
    ]


def main() -> None:
    """Print the table."""
    heads = ["prediction, s", "one map / prediction", "all maps / prediction", "first click, ms", "warm click, ms"]
    table = Table("network", *heads, "slowest source, ms", "first / warm", title="Attention of the small presets")
    for info in list_nets():
        for dims in info.spatial_dims if info.sources else ():
            table.add_row(f"{info.name} {dims}D", *row(small_model(info.name, dims), SHAPES[dims][0]))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
