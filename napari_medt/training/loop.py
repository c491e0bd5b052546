"""The training loop of a recipe: stages, checkpoints, validation, resumption, several processes.

Every step follows from the recipe and the number of the step alone: its windows, and what dropout drops. So a run that was
killed goes on, from its last checkpoint, to the very weights it would have had.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from napari_medt.core import BadTrainingData, Cancel, Cancelled, Progress, StorageError, silent
from napari_medt.nets import create_net
from napari_medt.training.board import EVERY, Board
from napari_medt.training.checkpoints import load_state, save_state
from napari_medt.training.optimise import (
    MovingAverage,
    background_at,
    dice_and_cross_entropy,
    learning_rate_at,
    make_optimiser,
    net_loss,
    refresh_norms,
    seed_everything,
)
from napari_medt.training.recipe import Recipe, Stage
from napari_medt.training.run_folder import (
    BEST,
    CURVES,
    LAST,
    METRICS,
    add_metrics,
    planned,
    write_plan,
)
from napari_medt.training.sampling import Batch, Sample, Sampler, collate
from napari_medt.training.validation import number_of_tiles, validate

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECKPOINT_EVERY = 100  # steps
VALIDATIONS = 10  # a run
MEASURED = 10  # steps whose time a plan with `max_minutes` is made from
LOOKING = -(
    2**31
)  # steps from which windows for the statistics of norms are drawn, so that they are none of the training's
Job = tuple[int, int, tuple[int, ...]]  # step, place in the batch, size of the window


class Run:
    """One training of a recipe in a folder of its own.

    Parameters
    ----------
    recipe
        What to do; `recipe.steps` decides when the run ends.
    training, validation
        Images to learn from, and to choose the best state by.
    folder
        Gets `plan.json`, `metrics.csv`, `last.pt` and `best.pt`, and `tensorboard/` where TensorBoard is installed.
    max_minutes
        Shorten the recipe, in proportion, so that it ends in about this time, the learning rate run down to its end; the plan
        says to how many steps.
    resume
        Go on from `last.pt`, by the plan that lies beside it. Where there is none, the run begins.
    fabric
        Devices, precision and processes, launched; by default one processor.
    workers
        Processes that make windows ahead.

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
        fabric: Fabric | None = None,
        workers: int = 0,
    ) -> None:
        if not training:
            raise BadTrainingData("There are no images to learn from", remedy="check the split file")
        self.folder, self._validation = folder, validation
        self._fabric = fabric or one_processor()
        self.device = self._fabric.device
        self._minutes, self._validations = max_minutes, VALIDATIONS
        unfinished = (folder / LAST).is_file()
        if unfinished and not resume:
            raise BadTrainingData(
                f"{folder} holds a run already", remedy="go on with it by --resume, or choose another folder"
            )
        self._asked, self.recipe = recipe, planned(folder, recipe, same_stages=True) if unfinished else recipe
        self._check_share()
        seed_everything(recipe.seed)
        self.net = create_net(recipe.architecture, **recipe.net_options)
        self._gates = [p for name, p in self.net.named_parameters() if name.endswith("gates")]
        self._sampler, self._workers = Sampler(training, recipe), workers
        self._optimiser = make_optimiser(self.net, recipe.optimisation)
        if self._fabric.world_size > 1 and self.device.type == "cuda":
            self.net = nn.SyncBatchNorm.convert_sync_batchnorm(self.net)  # type: ignore[no-untyped-call]
        self._wrapped, self._wrapped_optimiser = self._fabric.setup(self.net, self._optimiser)
        self._average = MovingAverage(self.net, recipe.optimisation.average)
        self._overlapping = training[0].overlapping
        self.step, self._stale, self._best = 0, 0, -1.0
        self._losses: list[float] = []
        self._board: Board | None = None
        self._seconds = self._waited = self._stepping = 0.0
        if self._fabric.is_global_zero:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(f"The run folder {folder} cannot be made: {error.strerror}") from error
        if unfinished:
            self._restore()
        elif self._fabric.is_global_zero:  # of a run that ended before its first checkpoint
            for leftover in (BEST, METRICS, CURVES):
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
        with Board(self.folder, step=self.step) if self._fabric.is_global_zero else nullcontext() as self._board:
            self._run(report, cancel)
        return self.best() or self.averaged()

    def _run(self, report: Progress, cancel: Cancel | None) -> None:
        batches = self._batches()
        while self.step < self.recipe.steps and not self._is_stale():
            if cancel is not None and cancel.is_set():
                self._save()
                kept = f"the checkpoint in {self.folder} is kept, from which --resume goes on"
                raise Cancelled(f"Stopped at step {self.step} of {self.recipe.steps}; {kept}")
            began = time.monotonic()
            batch = next(batches)
            self._waited += time.monotonic() - began
            self._losses.append(self._one_step(batch))
            self._stepping += time.monotonic() - began
            if self._minutes is not None and self.step - self._first == MEASURED:
                self._shorten()
                batches = self._batches()
            report(self.step, self.recipe.steps, f"loss {np.mean(self._losses[-50:]):.3f}")
            if self._board is not None and self.step % EVERY == 0:
                rate = self._optimiser.param_groups[0]["lr"]
                self._board.add(self.step, {"loss": float(np.mean(self._losses[-EVERY:])), "learning rate": rate})
            last, every = self.step >= self.recipe.steps, max(1, self.recipe.steps // self._validations)
            if last or (self.step % every == 0 and self.recipe.steps - self.step > every // 2):
                self._validate(report)
                self._save()
                if self._is_stale() and not last:
                    report(self.step, self.recipe.steps, "ended early, since it did not get better any more")
            elif self.step % CHECKPOINT_EVERY == 0:
                self._save()

    def averaged(self) -> nn.Module:
        """The moving average of the weights, with norm statistics taken from training windows of the last stage."""
        stage, plan = self.recipe.stages[-1], self.recipe.optimisation
        seed_everything(self.recipe.seed)  # what dropout drops
        drawn = (
            self._sampler.batch(LOOKING + number, stage.batch, stage.size(len(self.recipe.window))).to(self.device)
            for number in range(plan.norm_batches)
        )
        return refresh_norms(self._average.network(self.net), ((b.images, b.positions) for b in drawn))

    def best(self) -> nn.Module | None:
        """The state with the highest Dice on the validation images so far, if there were any."""
        path = self.folder / BEST
        if not path.is_file():
            return None
        net = copy.deepcopy(self.net)
        net.load_state_dict(load_state(path, self.device)["net"])
        return net.eval()

    def _is_stale(self) -> bool:
        """Whether so many validations brought no gain that the run ends."""
        return 0 < self.recipe.optimisation.patience <= self._stale

    @property
    def loading_share(self) -> float:
        """Share of the time so far that went by waiting for windows."""
        return self._waited / max(1e-9, time.monotonic() - self._started - self._seconds)

    @property
    def seconds_per_step(self) -> float:
        """Mean of the steps since it began or went on, windows included, looks at the validation images not; NaN before any."""
        steps = self.step - self._first
        return self._stepping / steps if steps else math.nan

    def _batches(self) -> Iterator[Batch]:
        """The batches of the steps to come; helpers make them ahead where there are any."""
        dims, world, rank = len(self.recipe.window), self._fabric.world_size, self._fabric.global_rank

        def jobs() -> Iterator[list[Job]]:
            for step in range(self.step, self.recipe.steps):
                stage = self._stage(step)
                yield [(step, index, stage.size(dims)) for index in range(stage.batch)[rank::world]]

        return iter(
            DataLoader(
                _Windows(self._sampler),
                batch_sampler=jobs(),
                collate_fn=collate,
                num_workers=self._workers,
                pin_memory=self.device.type == "cuda",
            )
        )

    def _check_share(self) -> None:
        for stage in self.recipe.stages:
            if stage.batch % self._fabric.world_size:
                raise BadTrainingData(
                    f"A batch of {stage.batch} windows cannot be shared by {self._fabric.world_size} processes",
                    remedy="choose a number of processes that divides the batch, or change the batch in the recipe",
                )

    def _stage(self, step: int) -> Stage:
        before = 0
        for stage in self.recipe.stages:
            before += stage.steps
            if step < before:
                return stage
        return self.recipe.stages[-1]

    def _one_step(self, batch: Batch) -> float:
        plan, steps = self.recipe.optimisation, self.recipe.steps
        rate = learning_rate_at(
            self.step, steps=steps, peak=plan.learning_rate, warmup=plan.warmup, schedule=plan.schedule
        )
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        seed_everything(hash((self.recipe.seed, self.step, self._fabric.global_rank)) % 2**31)  # what dropout drops
        images, labels, positions = batch.to(self.device)
        self.net.train()
        background = background_at(self.step, steps=steps, start=plan.background, rises=plan.background_rises)
        criterion = dice_and_cross_entropy(overlapping=self._overlapping, background=background)
        loss = net_loss(self._wrapped, images, labels, criterion, positions=positions)
        self._wrapped_optimiser.zero_grad()
        self._fabric.backward(loss)
        if self.step < plan.gates_held * steps:
            for gate in self._gates:
                gate.grad = None
        nn.utils.clip_grad_norm_(self.net.parameters(), plan.clip)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise BadTrainingData(
                f"The training lost its way at step {self.step + 1}: the loss is not a number any more",
                remedy="choose a smaller learning rate",
            )
        self._wrapped_optimiser.step()
        self._average.update(self.net)
        self.step += 1
        return value

    def _shorten(self) -> None:
        """Plan the number of steps anew from the time of the first ones; a validation counts as forward passes."""
        assert self._minutes is not None
        seconds = (time.monotonic() - self._started - self._seconds) / MEASURED
        seconds = float(self._fabric.broadcast(seconds))
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
        """Look how far it is, on the first process."""
        if not self._validation:
            return
        if self._fabric.is_global_zero:
            report(self.step, self.recipe.steps, "validating")
            net = self.averaged()
            scores = validate(net, self._validation, self.recipe.window, classes=self.recipe.classes[1:])
            if self._board is not None:
                self._board.add(self.step, {f"validation/{name or 'images'}": dice for name, dice in scores.items()})
            self._add_metrics(scores)
            self._stale += 1
            if scores["all"] >= self._best:
                self._best, self._stale = scores["all"], 0
                state = {"step": self.step, "score": scores["all"], "net": net.state_dict()}
                save_state(self.folder / BEST, state)
            report(self.step, self.recipe.steps, "validation " + ", ".join(f"{k} {v:.3f}" for k, v in scores.items()))
        self._stale = int(self._fabric.broadcast(self._stale))

    def _add_metrics(self, scores: dict[str, float]) -> None:
        row = {
            "step": str(self.step),
            "seconds": str(round(time.monotonic() - self._started)),
            "loss": f"{np.mean(self._losses[-100:]):.4f}",
            **{f"dice {name}": f"{value:.4f}" for name, value in scores.items() if name},
        }
        add_metrics(self.folder, row)

    def _write_plan(self, **measured: float) -> None:
        if self._fabric.is_global_zero:
            how = {"device": str(self.device), "processes": self._fabric.world_size}
            write_plan(self.folder, self.recipe, self._asked, **measured, **how, threads=torch.get_num_threads())

    def _save(self) -> None:
        if self._fabric.is_global_zero:
            state = {
                "step": self.step,
                "seconds": time.monotonic() - self._started,
                "net": self.net.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "average": self._average.state,
                "updates": self._average.updates,
                "losses": self._losses,
                "best": self._best,
                "stale": self._stale,
                "validations": self._validations,
            }
            save_state(self.folder / LAST, state)
        self._fabric.barrier()

    def _restore(self) -> None:
        state = load_state(self.folder / LAST, self.device)
        self.net.load_state_dict(state["net"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._average.state, self._average.updates = state["average"], state["updates"]
        self._losses, self.step, self._seconds = state["losses"], state["step"], state["seconds"]
        self._best, self._stale = state["best"], state["stale"]
        self._validations = state.get("validations", VALIDATIONS)


class _Windows(Dataset[Batch]):
    """The windows of a sampler by step and place in the batch."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def __getitem__(self, job: Job) -> Batch:
        return self._sampler.window(*job)


def one_processor() -> Fabric:
    """Fabric on one processor, in single precision."""
    from lightning_fabric import Fabric

    return Fabric(accelerator="cpu", devices=1)
