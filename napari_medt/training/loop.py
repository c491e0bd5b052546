"""The training loop of a recipe: stages, checkpoints, validation, resumption."""

from __future__ import annotations

import copy
import csv
import json
import math
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from napari_medt.core import BadTrainingData, Cancel, Progress, StorageError, silent
from napari_medt.io import atomic_write
from napari_medt.nets import create_net
from napari_medt.training.optimise import (
    MovingAverage,
    dice_and_cross_entropy,
    learning_rate_at,
    net_loss,
    parameter_groups,
    refresh_norms,
    seed_everything,
)
from napari_medt.training.recipe import Recipe, Stage, parse_recipe
from napari_medt.training.sampling import Sample, Sampler
from napari_medt.training.validation import number_of_tiles, validate

CHECKPOINT_EVERY = 100  # steps
VALIDATIONS = 8  # a run
MEASURED = 10  # steps whose time a plan with `max_minutes` is made from
PLAN, METRICS, LAST, BEST = "plan.json", "metrics.csv", "last.pt", "best.pt"


class Run:
    """One training of a recipe in a folder of its own.

    Parameters
    ----------
    recipe
        What to do; `recipe.steps` decides when the run ends.
    training, validation
        Images to learn from, and to choose the best state by.
    folder
        Gets `plan.json`, `metrics.csv`, `last.pt` and `best.pt`.
    max_minutes
        Shorten the recipe, in proportion, so that it ends in about this time, the learning rate run down to its end; the plan
        says to how many steps.
    resume
        Go on from `last.pt`, by the plan that lies beside it. Where there is none, the run begins.
    device
        Where the network is trained.

    Raises
    ------
    BadTrainingData
        If there is nothing to learn from, or the folder holds another run.
    StorageError
        If the folder cannot be made.
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
        device: torch.device | str = "cpu",
    ) -> None:
        if not training:
            raise BadTrainingData("There are no images to learn from", remedy="check the split file")
        self.folder, self._validation, self.device = folder, validation, torch.device(device)
        self._minutes, self._validations = max_minutes, VALIDATIONS
        unfinished = (folder / LAST).is_file()
        if unfinished and not resume:
            raise BadTrainingData(
                f"{folder} holds a run already", remedy="go on with it by --resume, or choose another folder"
            )
        self.recipe = self._planned(recipe) if unfinished else recipe
        seed_everything(recipe.seed)
        self.net = create_net(recipe.architecture, **recipe.net_options).to(self.device)
        self._sampler = Sampler(training, weights=recipe.data.weights, scales=recipe.data.scale, seed=recipe.seed)
        plan = recipe.optimisation
        self._optimiser = torch.optim.AdamW(parameter_groups(self.net, plan.weight_decay), lr=plan.learning_rate)
        self._average = MovingAverage(self.net, plan.average)
        self._criterion = dice_and_cross_entropy()
        self.step = 0
        self._losses: list[float] = []
        self._seconds = 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"The run folder {folder} cannot be made: {error.strerror}") from error
        if unfinished:
            self._restore()
        else:  # of a run that ended before its first checkpoint
            for leftover in (BEST, METRICS):
                (folder / leftover).unlink(missing_ok=True)
        self._started = time.monotonic() - self._seconds
        self._first = self.step

    def train(self, *, progress: Progress | None = None, cancel: Cancel | None = None) -> nn.Module:
        """Run to the end.

        Returns
        -------
        nn.Module
            The best of the validated states (the last, without validation images): averaged weights with fitting norm
            statistics, in evaluation mode.
        """
        report = progress or silent
        self._write_plan()
        while self.step < self.recipe.steps:
            if cancel is not None and cancel.is_set():
                self._save()
                cancel.check()
            self._losses.append(self._one_step())
            if self._minutes is not None and self.step - self._first == MEASURED:
                self._shorten()
            report(self.step, self.recipe.steps, f"loss {np.mean(self._losses[-50:]):.3f}")
            last, every = self.step >= self.recipe.steps, max(1, self.recipe.steps // self._validations)
            if last or (self.step % every == 0 and self.recipe.steps - self.step > every // 2):
                self._validate(report)
                self._save()
            elif self.step % CHECKPOINT_EVERY == 0:
                self._save()
        return self.best() or self.averaged()

    def averaged(self) -> nn.Module:
        """The moving average of the weights, with norm statistics taken from training windows of the last stage."""
        stage, plan = self.recipe.stages[-1], self.recipe.optimisation
        sampler = self._sampler
        state = sampler.rng.bit_generator.state
        batches = (sampler.batch(stage.batch, stage.window)[0].to(self.device) for _ in range(plan.norm_batches))
        net = refresh_norms(self._average.network(self.net), batches)
        sampler.rng.bit_generator.state = state  # looking must not change what is drawn next
        return net

    def best(self) -> nn.Module | None:
        """The state with the highest Dice on the validation images so far, if there were any."""
        path = self.folder / BEST
        if not path.is_file():
            return None
        net = copy.deepcopy(self.net)
        net.load_state_dict(torch.load(path, map_location=self.device, weights_only=True)["net"])
        return net.eval()

    def _stage(self) -> Stage:
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
        images, labels = (part.to(self.device) for part in self._sampler.batch(stage.batch, stage.window))
        self.net.train()
        loss = net_loss(self.net, images, labels, self._criterion)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), plan.clip)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise BadTrainingData(
                f"The training lost its way at step {self.step + 1}: the loss is not a number any more",
                remedy="choose a smaller learning rate",
            )
        self._optimiser.step()
        self._average.update(self.net)
        self.step += 1
        return value

    def _shorten(self) -> None:
        """Plan the number of steps anew from the time of the first ones; a validation counts as forward passes."""
        assert self._minutes is not None
        seconds = (time.monotonic() - self._started - self._seconds) / MEASURED
        windows = number_of_tiles(self._validation, self.recipe.window)
        passes = self.recipe.optimisation.norm_batches + windows / self.recipe.stages[-1].batch
        look = passes / 3  # in steps: a step takes about three times as long as its forward pass
        affordable = 60 * self._minutes / seconds * 0.95 - MEASURED
        self._validations = max(1, min(VALIDATIONS, int(0.15 * affordable / look)))
        steps = self.step + max(1, int(affordable - self._validations * look))
        if steps < self.recipe.steps:
            self.recipe = self.recipe.scaled_to(steps)
            self._write_plan(seconds_per_step=round(seconds, 3))

    def _validate(self, report: Progress) -> None:
        if not self._validation:
            return
        report(self.step, self.recipe.steps, "validating")
        net = self.averaged()
        scores = validate(net, self._validation, self.recipe.window)
        self._add_metrics(scores)
        if scores["all"] >= self._best_score():
            state = {"step": self.step, "score": scores["all"], "net": net.state_dict()}
            atomic_write(self.folder / BEST, lambda file: torch.save(state, file))
        report(self.step, self.recipe.steps, "validation " + ", ".join(f"{k} {v:.3f}" for k, v in scores.items()))

    def _best_score(self) -> float:
        path = self.folder / BEST
        return float(torch.load(path, weights_only=True)["score"]) if path.is_file() else -1.0

    def _add_metrics(self, scores: dict[str, float]) -> None:
        """Add a row; rows of a stretch that a resumed run goes through again are replaced."""
        row = {
            "step": str(self.step),
            "seconds": str(round(time.monotonic() - self._started)),
            "loss": f"{np.mean(self._losses[-100:]):.4f}",
            **{f"dice {name}": f"{value:.4f}" for name, value in scores.items()},
        }
        path = self.folder / METRICS
        rows = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [old for old in csv.DictReader(file) if int(old["step"]) < self.step]
        lines = [",".join(row), *(",".join(r.get(column) or "" for column in row) for r in (*rows, row))]
        atomic_write(path, ("\n".join(lines) + "\n").encode())

    def _planned(self, recipe: Recipe) -> Recipe:
        """The recipe that the run in this folder follows, which may have been shortened."""
        path = self.folder / PLAN
        try:
            planned = parse_recipe(json.loads(path.read_bytes())["recipe"], where=f"plan {path}")
        except (OSError, ValueError, KeyError) as error:
            raise BadTrainingData(
                f"The run in {self.folder} cannot go on: {PLAN} is missing or damaged", remedy="choose another folder"
            ) from error
        words = {name: getattr(recipe, name) for name in ("stages", "title", "description", "card")}
        if planned.model_copy(update=words) != recipe:
            raise BadTrainingData(
                f"The run in {self.folder} follows another recipe",
                remedy="choose another folder, or begin without --resume",
            )
        return recipe.model_copy(update={"stages": planned.stages})

    def _write_plan(self, **measured: float) -> None:
        plan = {
            "recipe": self.recipe.model_dump(),
            "steps": self.recipe.steps,
            **measured,
            "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "numpy", "monai")}},
            "device": str(self.device),
            "threads": torch.get_num_threads(),
        }
        atomic_write(self.folder / PLAN, json.dumps(plan, indent=1).encode())

    def _save(self) -> None:
        state = {
            "step": self.step,
            "seconds": time.monotonic() - self._started,
            "net": self.net.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": self._average.state,
            "updates": self._average.updates,
            "losses": self._losses,
            "sampler": json.dumps(self._sampler.rng.bit_generator.state),
            "torch": torch.get_rng_state(),
        }
        atomic_write(self.folder / LAST, lambda file: torch.save(state, file))

    def _restore(self) -> None:
        state: dict[str, Any] = torch.load(self.folder / LAST, map_location=self.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._average.state, self._average.updates = state["average"], state["updates"]
        self._losses, self.step = state["losses"], state["step"]
        self._seconds = state.get("seconds", 0.0)
        self._sampler.rng.bit_generator.state = json.loads(state["sampler"])
        torch.set_rng_state(state["torch"].cpu())
