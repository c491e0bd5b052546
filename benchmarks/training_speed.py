"""A training step of ours beside a plain PyTorch loop and MONAI's SupervisedTrainer: time, memory, and the wait for windows.

python -m benchmarks.training_speed [--quick] [--seconds 10] [--rounds 3] [--device cpu] [--workers N] [NET | RECIPE ...]

Network, first weights, loss, windows and precision are the same in all three, from images made up here: of a recipe such as
`unet-nuclei`, the windows of its last stage; of a network by its name, its smallest preset on small windows. What differs is
the loop: ours also clips gradients, keeps the moving average of the weights, and writes checkpoints. Each measurement is a
process of its own, so that its peak memory is its own, and the three take turns. On the processor, ratios are those of
processor time, of the quicker steps: other programs make steps slower, never quicker.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from napari_medt.core import Cancel, Cancelled
from napari_medt.nets import create_net, list_nets
from napari_medt.nets.registry import NetInfo
from napari_medt.training.auto import OPTIMISATION
from napari_medt.training.bundle import usual_workers
from napari_medt.training.loop import Run
from napari_medt.training.optimise import Loss, dice_and_cross_entropy, launch, net_loss, seed_everything
from napari_medt.training.recipe import Recipe, parse_recipe, read_recipe
from napari_medt.training.sampling import Batch, Sample, Sampler

RECIPES = Path(__file__).parents[1] / "recipes"
RECIPES_CHOSEN = [
    *(f"{net}-nuclei" for net in ("unet", "attention-unet", "u-transformer", "guided-attention")),
    *(f"{net}-nuclei" for net in ("axial-unet", "gated-axial-unet", "logo", "medt")),
    *(f"{net}-hippocampus" for net in ("unet", "attention-unet", "u-transformer", "unetr")),
    *(f"{net}-headneck" for net in ("fine", "glam")),
]
LOOPS = ("plain", "MONAI", "ours")
STEPS = 1_000_000  # more than there will be time for
WARM_UP = 2  # steps that are not counted
SMALL_WINDOWS = {2: (64, 64), 3: (32, 32, 32)}
QUICK = {"names": ["unet", "u-transformer", "unetr"], "seconds": 0.5, "rounds": 1}


class Times(NamedTuple):
    """Of a step, in seconds: on the clock, and of this process's processor time."""

    clock: float
    processor: float

    def on(self, device: str) -> float:
        """What counts: the processor does not see how long a GPU took."""
        return self.clock if device.startswith("cuda") else self.processor

    @staticmethod
    def now() -> Times:
        return Times(time.perf_counter(), time.process_time())


class Measured(NamedTuple):
    """Times of a step (a quarter were quicker), share of time waiting for windows, first loss, peak memory in MB."""

    times: Times
    waiting: float
    loss: float
    megabytes: float = 0.0


class Setting(NamedTuple):
    """What all loops are given."""

    recipe: Recipe
    samples: list[Sample]
    device: torch.device
    workers: int
    seconds: float

    def net(self) -> nn.Module:
        seed_everything(self.recipe.seed)
        return create_net(self.recipe.architecture, **self.recipe.net_options).to(self.device).train()

    def optimiser(self, net: nn.Module) -> torch.optim.Optimizer:
        plan = self.recipe.optimisation
        rate = plan.learning_rate / plan.warmup
        return torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=plan.weight_decay)


class Batches(Dataset[Batch]):
    """The batches of a recipe's last stage by step."""

    def __init__(self, setting: Setting) -> None:
        self._sampler, stage = Sampler(setting.samples, setting.recipe), setting.recipe.stages[-1]
        self._batch, self._window = stage.batch, stage.size(len(setting.recipe.window))

    def __getitem__(self, step: int) -> Batch:
        return self._sampler.batch(step, self._batch, self._window)


class Clock:
    """Batches for as long as there is time, and when they were asked for and given."""

    def __init__(self, setting: Setting) -> None:
        self._loader = DataLoader(
            Batches(setting),
            batch_size=None,
            sampler=range(STEPS),
            num_workers=setting.workers,
            pin_memory=setting.device.type == "cuda",
        )
        self._seconds = setting.seconds
        self.asked: list[Times] = []
        self.waited = 0.0

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self._loader)
        while True:
            self.asked.append(Times.now())
            if is_over(self.asked, self._seconds):
                return
            batch = next(batches)
            self.waited += time.perf_counter() - self.asked[-1].clock
            yield Batch(*batch)

    def measured(self, losses: list[float]) -> Measured:
        whole = self.asked[-1].clock - self.asked[0].clock
        return Measured(per_step(self.asked), self.waited / whole, losses[0])


def is_over(stamps: list[Times], seconds: float) -> bool:
    return stamps[-1].clock - stamps[0].clock > seconds and len(stamps) > WARM_UP + 1


def per_step(stamps: list[Times]) -> Times:
    return Times(*np.quantile(np.diff(stamps[WARM_UP:], axis=0), 0.25, axis=0).tolist())


def plain(setting: Setting, criterion: Loss) -> Measured:
    """As one writes it down."""
    net, device, losses, clock = setting.net(), setting.device, [], Clock(setting)
    optimiser = setting.optimiser(net)
    for batch in clock:
        images, labels, positions = batch.to(device)
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = net_loss(net, images, labels, criterion, positions=positions)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return clock.measured(losses)


def monai(setting: Setting, criterion: Loss) -> Measured:
    """With MONAI's trainer, which runs on Ignite."""
    from monai.engines import SupervisedTrainer

    net, losses, clock = setting.net(), [], Clock(setting)
    own = getattr(net, "loss", None)

    def loss_of(outputs: Any, labels: Tensor) -> Tensor:
        loss: Tensor = own(outputs, labels, criterion) if own else criterion(outputs, labels)
        losses.append(loss.item())
        return loss

    def prepare(
        batch: Batch, device: torch.device, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...], dict]:
        images, labels, positions = batch.to(device)
        return images, labels, (positions,) if getattr(net, "takes_position", False) else (), {}

    on_gpu = setting.device.type == "cuda"
    SupervisedTrainer(
        device=setting.device,
        max_epochs=1,
        train_data_loader=clock,
        network=net,
        optimizer=setting.optimiser(net),
        loss_function=loss_of,
        prepare_batch=prepare,
        amp=on_gpu,
        amp_kwargs={"dtype": torch.bfloat16} if on_gpu else None,
        decollate=False,
    ).run()
    return clock.measured(losses)


def ours(setting: Setting, criterion: Loss) -> Measured:
    """As `napari-medt train` does."""
    cancel, stamps, losses = Cancel(), [], []

    def look(done: int, total: int, message: str = "", /) -> None:
        stamps.append(Times.now())
        losses.append(float(message.removeprefix("loss ")))
        if is_over(stamps, setting.seconds):
            cancel.set()

    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            setting.recipe,
            setting.samples,
            [],
            folder=Path(folder),
            fabric=launch(str(setting.device)),
            workers=setting.workers,
        )
        with contextlib.suppress(Cancelled):
            run.train(progress=look, cancel=cancel)
        return Measured(per_step(stamps), run.loading_share, losses[0])


def made_up(recipe: Recipe, count: int = 8) -> list[Sample]:
    """Images of noise with smooth structures in them, twice as long as the recipe's windows, on its groups."""
    rng = np.random.default_rng(0)
    shape, classes = tuple(2 * size for size in recipe.window), len(recipe.classes)
    channels = 3 if recipe.channels == "rgb" else 1
    samples = []
    for number in range(count):
        relief = ndimage.gaussian_filter(rng.standard_normal(shape), 4)
        edges = np.quantile(relief, np.linspace(0.6, 1, classes)[:-1])
        image = rng.standard_normal((channels, *shape)).astype(np.float16)
        groups = list(recipe.data.weights) or [""]
        labels = np.digitize(relief, edges).astype(np.uint8)
        samples.append(Sample(image, labels, groups[number % len(groups)], str(number)))
    return samples


def small_recipe(net: NetInfo) -> Recipe:
    """A network at its smallest, on small windows: colour pictures, or grey volumes where it takes no pictures."""
    dims = min(net.spatial_dims)
    window = SMALL_WINDOWS[dims]
    sizes = {"img_size": window, "spatial_dims": dims, "in_channels": 3 if dims == 2 else 1, "num_classes": 2}
    options = net.presets["small"] | {name: value for name, value in sizes.items() if name in net.defaults}
    content = {
        "name": f"{net.name}-small",
        "title": net.title,
        "architecture": net.name,
        "net_options": options,
        "classes": ("background", "structure"),
        "channels": "rgb" if dims == 2 else "grey",
        "window": window,
        "intensity": {"kind": "none"},
        "seed": 1,
        "data": {"folder": ""},
        "augmentation": {"preset": "microscopy" if dims == 2 else "mr", "scale": (0.8, 1.25)},
        "stages": [{"window": window, "batch": 2, "steps": STEPS}],
        "optimisation": OPTIMISATION,
    }
    return parse_recipe(content, where=net.name)


def recipe_of(name: str) -> Recipe:
    """Of a network or of a recipe file, by name."""
    nets = {net.name: net for net in list_nets()}
    return small_recipe(nets[name]) if name in nets else read_recipe(RECIPES / f"{name}.toml")


def measure(loop: str, name: str, device: str, workers: int | None, seconds: float) -> Measured:
    """One loop, in this process."""
    recipe = recipe_of(name)
    last = recipe.stages[-1].model_copy(update={"steps": STEPS})
    recipe = recipe.model_copy(update={"stages": (last,)})
    place = launch(device).device
    setting = Setting(recipe, made_up(recipe), place, usual_workers(place) if workers is None else workers, seconds)
    criterion = dice_and_cross_entropy()
    if loop == "MONAI":
        import_module("monai.engines")  # before memory is looked at, as the libraries of the other loops
    functions: dict[str, Callable[[Setting, Loss], Measured]]
    functions = {"plain": plain, "MONAI": monai, "ours": ours}
    before = psutil.Process().memory_info().rss
    found = functions[loop](setting, criterion)
    if place.type == "cuda":
        megabytes = torch.cuda.max_memory_allocated(place) / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        megabytes = max(1.0, (peak - before) / 2**20)
    return found._replace(megabytes=megabytes)


def fresh_processes(device: str) -> BaseContext:
    """Processes that begin with the libraries loaded and nothing else; where that is not safe, ones that load them."""
    if sys.platform != "linux" or device != "cpu":
        return multiprocessing.get_context("spawn")
    for library in ("monai.losses.dice", "lightning_fabric", *(["monai.engines"] if has_ignite() else [])):
        import_module(library)
    return multiprocessing.get_context("fork")


def side_by_side(name: str, context: BaseContext, rounds: int, device: str, **options: Any) -> dict[str, Measured]:
    """All loops in turn; of each, the round with the quickest steps, since other programs only make them slower."""
    found: dict[str, list[Measured]] = {}
    for _ in range(rounds):
        for loop in LOOPS:
            if loop == "MONAI" and not has_ignite():
                continue
            with context.Pool(1) as pool:
                found.setdefault(loop, []).append(pool.apply(measure, (loop, name, device), options))
    return {loop: min(results, key=lambda one: one.times.on(device)) for loop, results in found.items()}


def has_ignite() -> bool:
    """Whether MONAI's trainer can run."""
    return find_spec("ignite") is not None


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", help="such as unet or unet-nuclei; by default, all nets and a recipe of each"
    )
    parser.add_argument("--quick", action="store_true", help="three small networks, in two minutes")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, help="processes that make windows ahead; by default as in a training")
    wish = parser.parse_args()
    if wish.quick:
        vars(wish).update(QUICK)
    names = wish.names or [*(net.name for net in list_nets()), *RECIPES_CHOSEN]
    console, context = Console(), fresh_processes(wish.device)
    table = Table("network", "loop", "s", "CPU s", "ratio", "MB", "ratio", "waiting", "loss", box=None, pad_edge=False)
    table.title = f"A training step, {wish.device}, {torch.get_num_threads()} threads; ratios are ours to that loop"
    for name in names:
        found = side_by_side(name, context, wish.rounds, wish.device, workers=wish.workers, seconds=wish.seconds)
        own = found["ours"]
        for loop, one in found.items():
            ratio = own.times.on(wish.device) / one.times.on(wish.device)
            cells = [f"{one.times.clock:.3f}", f"{one.times.processor:.3f}", f"{ratio:.2f}"]
            cells += [f"{one.megabytes:.0f}", f"{own.megabytes / one.megabytes:.2f}"]
            table.add_row(name, loop, *cells, f"{one.waiting:.1%}", f"{one.loss:.3f}")
    console.print(table)
    if not has_ignite():
        console.print("MONAI's trainer is left out: it needs pytorch-ignite (pip install pytorch-ignite)")


if __name__ == "__main__":
    main()
