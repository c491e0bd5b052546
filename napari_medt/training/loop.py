"""The training loop of a recipe: stages, checkpoints, validation, resumption."""

from __future__ import annotations

import csv
import json
import os
import platform
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from napari_medt.core import BadTrainingData, Cancel, Progress, StorageError, silent
from napari_medt.measure import Overlap, count
from napari_medt.nets import create_net
from napari_medt.training.optimise import (
    MovingAverage,
    dice_and_cross_entropy,
    learning_rate_at,
    parameter_groups,
    refresh_norms,
)
from napari_medt.training.recipe import Recipe
from napari_medt.training.sampling import Sample, Sampler

CHECKPOINT_EVERY = 100  # steps
VALIDATIONS = 8  # a run


class Run:
    """One training of a recipe in a folder of its own.

    Parameters
    ----------
    recipe
        What to do; `recipe.steps` decides when the run ends.
    training, validation
        Images to learn from, and to watch the learning on.
    folder
        Gets `plan.json`, `metrics.csv` and `last.pt`. If `last.pt` is there and `resume`, the run goes on from it.
    max_minutes
        Shorten the recipe, in proportion, so that it ends in about this time; the plan says to how many steps.
    """

    def __init__(
        self,
        recipe: Recipe,
        training: Sequence[Sample],
        validation: Sequence[Sample],
        *,
        folder: Path,
        max_minutes: float | None = None,
        resume: bool = False,
    ) -> None:
        if not training:
            raise BadTrainingData("There are no images to learn from", remedy="check the split file")
        self.recipe, self.folder, self._validation = recipe, folder, validation
        self._minutes = max_minutes
        random.seed(recipe.seed)
        torch.manual_seed(recipe.seed)
        self.net = create_net(recipe.architecture, **recipe.net_options)
        self._sampler = Sampler(training, weights=recipe.data.weights, scales=recipe.data.scale, seed=recipe.seed)
        plan = recipe.optimisation
        self._optimiser = torch.optim.AdamW(parameter_groups(self.net, plan.weight_decay), lr=plan.learning_rate)
        self._average = MovingAverage(self.net, plan.average)
        self._loss = dice_and_cross_entropy()
        self.step = 0
        self._losses: list[float] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"The run folder {folder} cannot be made: {error.strerror}") from error
        if resume and (folder / "last.pt").is_file():
            self._restore()

    def train(self, *, progress: Progress | None = None, cancel: Cancel | None = None) -> nn.Module:
        """Run to the end; returns the averaged network with fitting norm statistics, in evaluation mode."""
        report = progress or silent
        self._write_plan()
        started, first = time.monotonic(), self.step
        while self.step < self.recipe.steps:
            if cancel is not None:
                cancel.check()
            loss = self._one_step()
            if self._minutes is not None and self.step - first == 10:
                self._shorten((time.monotonic() - started) / 10)
            self._losses.append(loss)
            report(self.step, self.recipe.steps, f"loss {np.mean(self._losses[-50:]):.3f}")
            last = self.step == self.recipe.steps
            if self.step % CHECKPOINT_EVERY == 0 or last:
                self._save()
            if last or self.step % max(1, self.recipe.steps // VALIDATIONS) == 0:
                self._validate(report, time.monotonic() - started)
        return self.averaged()

    def averaged(self) -> nn.Module:
        """The moving average of the weights, with norm statistics taken from training windows of the last stage."""
        stage = self.recipe.stages[-1]
        sampler = self._sampler
        state = sampler.rng.bit_generator.state
        batches = (sampler.batch(stage.batch, stage.window)[0] for _ in range(self.recipe.optimisation.norm_batches))
        net = refresh_norms(self._average.network(self.net), batches)
        sampler.rng.bit_generator.state = state  # looking must not change what is drawn next
        return net

    def _stage(self) -> Any:
        before = 0
        for stage in self.recipe.stages:
            before += stage.steps
            if self.step < before:
                return stage
        return self.recipe.stages[-1]

    def _one_step(self) -> float:
        plan, stage = self.recipe.optimisation, self._stage()
        rate = learning_rate_at(self.step, steps=self.recipe.steps, peak=plan.learning_rate, warmup=plan.warmup)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        images, labels = self._sampler.batch(stage.batch, stage.window)
        self.net.train()
        loss = self._loss(self.net(images), labels)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), plan.clip)
        self._optimiser.step()
        self._average.update(self.net)
        self.step += 1
        return float(loss.detach())

    def _shorten(self, seconds: float) -> None:
        assert self._minutes is not None
        affordable = max(self.step + 1, int(self._minutes * 60 / seconds * 0.95))
        if affordable < self.recipe.steps:
            self.recipe = self.recipe.scaled_to(affordable)
            self._write_plan()

    def _validate(self, report: Progress, seconds: float) -> None:
        scores = validate(self.averaged(), self._validation, self.recipe.window)
        row = {
            "step": self.step,
            "seconds": round(seconds),
            "loss": round(float(np.mean(self._losses[-100:])), 4),
            **{f"dice {name}": round(value, 4) for name, value in scores.items()},
        }
        path = self.folder / "metrics.csv"
        new = not path.exists() or path.stat().st_size == 0
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        report(self.step, self.recipe.steps, "validation " + ", ".join(f"{k} {v:.3f}" for k, v in scores.items()))

    def _write_plan(self) -> None:
        plan = {
            "recipe": self.recipe.model_dump(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
            "threads": torch.get_num_threads(),
        }
        (self.folder / "plan.json").write_text(json.dumps(plan, indent=1), "utf-8")

    def _save(self) -> None:
        state = {
            "step": self.step,
            "net": self.net.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": self._average.state,
            "updates": self._average.updates,
            "losses": self._losses,
            "sampler": json.dumps(self._sampler.rng.bit_generator.state),
            "torch": torch.get_rng_state(),
        }
        path = self.folder / "last.pt"
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StorageError(f"The checkpoint {path} cannot be written: {error.strerror}") from error

    def _restore(self) -> None:
        state = torch.load(self.folder / "last.pt", weights_only=True)
        self.net.load_state_dict(state["net"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._average.state, self._average.updates = state["average"], state["updates"]
        self._losses, self.step = state["losses"], state["step"]
        self._sampler.rng.bit_generator.state = json.loads(state["sampler"])
        torch.set_rng_state(state["torch"])


def validate(net: nn.Module, samples: Sequence[Sample], window: tuple[int, int]) -> dict[str, float]:
    """Mean Dice of the foreground by group and overall, on windows cut side by side from the middle of each image."""
    dice: dict[str, list[float]] = {}
    for sample in samples:
        overlap = Overlap()
        images, labels = _tiles(sample, window)
        with torch.inference_mode():
            found = net(images).argmax(1).numpy()
        overlap = count(found, labels)
        dice.setdefault(sample.group, []).append(overlap.dice)
    means = {group: float(np.mean(values)) for group, values in sorted(dice.items())}
    return {**means, "all": float(np.mean([v for values in dice.values() for v in values]))} if means else {}


def _tiles(sample: Sample, window: tuple[int, int], most: int = 3) -> tuple[torch.Tensor, np.ndarray]:
    """At most `most` x `most` windows around the middle."""
    images, labels = [], []
    spans = []
    for size, edge in zip(sample.labels.shape, window, strict=True):
        number = max(1, min(most, size // edge))
        start = max(0, (size - number * edge) // 2)
        spans.append([slice(start + i * edge, start + (i + 1) * edge) for i in range(number)])
    pad = [max(0, edge - size) for size, edge in zip(sample.labels.shape, window, strict=True)]
    image = np.pad(sample.image, ((0, 0), (0, pad[0]), (0, pad[1])), mode="edge")
    mask = np.pad(sample.labels, ((0, pad[0]), (0, pad[1])))
    for rows in spans[0]:
        for columns in spans[1]:
            images.append(image[:, rows, columns])
            labels.append(mask[rows, columns])
    return torch.from_numpy(np.stack(images).astype(np.float32)), np.stack(labels)
