"""The loop of a fine-tuning: steps, looks at held-out cases, pause, stop, checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_medt.core import BadTrainingData, Cancel, Cancelled, Control, Progress, StorageError
from napari_medt.nets.layers import with_background
from napari_medt.training.adapters import Learns, merged_state
from napari_medt.training.checkpoints import load_state, save_state
from napari_medt.training.corrections import Corrected, WeightedLoss, look
from napari_medt.training.optimise import forward, frozen_norms, learning_rate_at, net_loss, parameter_groups
from napari_medt.training.recipe import Augmentation, Data
from napari_medt.training.sampling import Batch, Sampler
from napari_medt.training.validation import BATCH, tiles
from napari_medt.zoo.card import Intensity

OnStep = Callable[[dict[str, Any]], None]
WARMUP, CLIP, WEIGHT_DECAY = 5, 2.0, 1e-3
LOOKS = 8  # at the held-out cases, as long as that takes no more than
LOOKING = 0.2  # of the time, if it is the time that is given
TIMED = 3  # steps that tell how many there is time for
UNKNOWN = 100  # steps that are told as long as their number is not known
SAVE_EVERY = 20.0  # seconds


@dataclass(frozen=True)
class TuningPlan:
    """How a fine-tuning goes; `seed` to `intensity` are what a `Sampler` asks for."""

    seed: int
    data: Data
    augmentation: Augmentation
    window: tuple[int, ...]
    spacing: tuple[float, ...] | None
    intensity: Intensity
    learns: Learns
    steps: int | None
    minutes: float | None
    batch: int
    learning_rate: float
    overlapping: bool
    structures: tuple[str, ...]


class Tuning:
    """One fine-tuning of a network, which is changed in place.

    Batch norms stay on the running statistics of the base: those of a few windows of a few patients would be noise, and would
    change what the network makes of all other images before a single weight has learnt anything.

    Parameters
    ----------
    net
        With the weights that are to learn chosen.
    plan
        How.
    learning, held_out
        What it learns from, and what it is looked at with.
    checkpoint
        File for what a crash would lose; gone on from if it is there, and removed at the end.
    """

    def __init__(
        self,
        net: nn.Module,
        plan: TuningPlan,
        learning: Sequence[Corrected],
        held_out: Sequence[Corrected],
        *,
        checkpoint: Path | None = None,
    ) -> None:
        self.net, self.plan = net, plan
        self.device = next(net.parameters()).device
        self._sampler = Sampler(learning, plan)
        self._criterion = WeightedLoss(overlapping=plan.overlapping)
        self._optimiser = torch.optim.AdamW(parameter_groups(net, WEIGHT_DECAY), lr=plan.learning_rate)
        self._windows = [part for sample in held_out for part in _in_batches(tiles(sample, plan.window))]
        self._checkpoint, self._saved = checkpoint, time.monotonic()
        self.step, self.steps = 0, plan.steps or 0
        self._every = -(-self.steps // LOOKS)
        self.before: dict[str, float] = {}
        self.best_step, self.best_mean, self._best_state = 0, -1.0, dict[str, Tensor]()
        if checkpoint is not None and checkpoint.is_file():
            self._restore(checkpoint)

    def run(self, report: Progress, cancel: Cancel | None, tell: OnStep) -> dict[str, Tensor]:
        """Learn to the end, or until stopped.

        Returns
        -------
        dict
            Weights of the network's architecture: those with the highest mean Dice on held-out cases, the last without any.

        Raises
        ------
        BadTrainingData
            If the loss is not a number any more.
        Cancelled
            If `cancel` was set.
        """
        began = timed = time.monotonic()
        if self.step == 0 and self._windows:
            self.before = self._look(tell)
            timed = time.monotonic()
        while self.step < (self.steps or TIMED) and _may_go_on(cancel):
            loss = self._one_step()
            if not self.steps and self.step == TIMED:
                self._plan_steps(timed - began, (time.monotonic() - timed) / TIMED)
            report(self.step, self.steps or UNKNOWN, f"Learning, loss {loss:.3f}")
            tell({"step": self.step, "steps": self.steps, "loss": loss, "training": self._named(self._criterion.dice)})
            if self._windows and self.steps and (self.step % self._every == 0 or self.step == self.steps):
                self._keep(self._look(tell))
            self._save()
        if cancel is not None:
            cancel.check()
        if not self.step:
            raise Cancelled
        if self._windows and self.best_step < self.step < self.steps:  # stopped
            self._keep(self._look(tell))
        return self._best_state or merged_state(self.net)

    def forget(self) -> None:
        """Remove the checkpoint, as it is not needed any more."""
        if self._checkpoint is not None:
            self._checkpoint.unlink(missing_ok=True)

    def _one_step(self) -> float:
        plan = self.plan
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate_at(
                self.step, steps=self.steps or UNKNOWN, peak=plan.learning_rate, warmup=WARMUP
            )
        torch.manual_seed(hash((plan.seed, self.step)) % 2**31)  # what dropout drops
        images, labels, positions = self._sampler.batch(self.step, plan.batch, plan.window).to(self.device)
        self._criterion.begin()
        with frozen_norms(self.net):
            loss = net_loss(self.net, images, labels, self._criterion, positions=positions)
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise BadTrainingData(
                "The training lost its way: the loss is not a number any more", remedy="choose a smaller learning rate"
            )
        self._optimiser.step()
        self.step += 1
        return value

    def _plan_steps(self, looking: float, each: float) -> None:
        """How many steps there is time for, and how many looks in between, from the seconds that one of each took."""
        assert self.plan.minutes is not None
        left = 60 * self.plan.minutes - looking - TIMED * each
        looks = min(LOOKS, int(LOOKING * left / looking)) if self._windows else 0
        self.steps = self.step + max(1, int((left - max(1, looks) * looking) / each))
        self._every = -(-self.steps // max(1, looks))

    def _look(self, tell: OnStep) -> dict[str, float]:
        self.net.eval()

        def logits(images: Tensor, positions: Tensor) -> Tensor:
            found: Tensor = forward(self.net, images.to(self.device), positions.to(self.device))
            return found if self.plan.overlapping else with_background(found)

        dice = self._named(look(logits, self._windows, overlapping=self.plan.overlapping))
        tell({"step": self.step, "steps": self.steps, "validation": dice})
        return dice

    def _keep(self, dice: dict[str, float]) -> None:
        if (score := mean(dice)) >= self.best_mean:
            self.best_mean, self.best_step, self._best_state = score, self.step, merged_state(self.net)

    def _named(self, dice: Sequence[float]) -> dict[str, float]:
        return dict(zip(self.plan.structures, dice, strict=True)) if dice else {}

    def _save(self) -> None:
        if self._checkpoint is None or time.monotonic() - self._saved < SAVE_EVERY:
            return
        state = {
            "step": self.step,
            "steps": self.steps,
            "every": self._every,
            "before": self.before,
            "net": self.net.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "best": (self.best_step, self.best_mean, self._best_state),
        }
        try:
            self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"The folder {self._checkpoint.parent} cannot be made: {error.strerror}", remedy="choose another place"
            ) from error
        save_state(self._checkpoint, state)
        self._saved = time.monotonic()

    def _restore(self, path: Path) -> None:
        state = load_state(path, self.device)
        self.net.load_state_dict(state["net"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.step, self.steps, self._every = state["step"], state["steps"], state["every"]
        self.before = state["before"]
        self.best_step, self.best_mean, self._best_state = state["best"]


def _may_go_on(cancel: Cancel | None) -> bool:
    """Whether there is to be another step; waits while paused, raises `Cancelled` if cancelled."""
    if isinstance(cancel, Control):
        cancel.wait()
        return not cancel.is_stopped()
    if cancel is not None:
        cancel.check()
    return True


def mean(dice: Mapping[str, float]) -> float:
    """Over the structures there are; 0 if there is none."""
    known = [value for value in dice.values() if not math.isnan(value)]
    return sum(known) / len(known) if known else 0.0


def _in_batches(windows: Batch) -> list[tuple[Tensor, Tensor, Tensor]]:
    return list(zip(*(torch.split(part, BATCH) for part in windows), strict=True))
