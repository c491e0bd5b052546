"""Teaching a model from corrected masks, pictures and scans, into a new version."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from napari_medt.core import BadTrainingData, Cancel, Cancelled, Progress, Volume, silent
from napari_medt.engine.pieces import is_one_piece
from napari_medt.engine.prepare import Scale
from napari_medt.engine.running import predict
from napari_medt.nets import create_net
from napari_medt.training.adapters import PRESETS, Learns, choose, merge
from napari_medt.training.corrections import Corrected, Correction, WeightedLoss, check_patients, to_corrected
from napari_medt.training.modality import kind_named
from napari_medt.training.net_cost import OVERHEAD, keeping
from napari_medt.training.optimise import frozen_norms, net_loss, parameter_groups
from napari_medt.training.recipe import Augmentation, Data
from napari_medt.training.tuning import OnStep, Tuning, TuningPlan, mean
from napari_medt.zoo.model import Model
from napari_medt.zoo.store import save_version

if TYPE_CHECKING:
    from napari_medt.zoo.card import ModelCard

Case = Correction | tuple[Volume | npt.ArrayLike, npt.ArrayLike]
SHARES = {"new": 0.5, "earlier": 0.25, "rehearsal": 0.25}  # of the windows, of the kinds of cases that there are
FOREGROUND = 0.67  # share of the windows around structures, edits and reviewed places
RATES: dict[Learns, float] = {"everything": 1e-3, "last layers": 2e-3, "adapters": 3e-3}


def fine_tune(
    model: Model,
    cases: Sequence[Case],
    *,
    learns: Learns = "everything",
    steps: int = 100,
    minutes: float | None = None,
    learning_rate: float | None = None,
    batch: int = 2,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    scale: Scale | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    on_step: OnStep | None = None,
) -> Model:
    """Go on training a copy of a model on corrected masks and keep it as a new version.

    Parameters
    ----------
    model
        The model that made the masks; it is not changed.
    cases
        Corrections, or pairs of image and mask that are reviewed everywhere. Half of the windows are cut from those of the
        group `"new"`, a quarter each from `"earlier"` and `"rehearsal"` ones, where there are any: they keep the model from
        forgetting. A rehearsal case without labels is labelled by the model itself.
    learns
        `"everything"`; `"last layers"`, which is quicker and takes less memory; or `"adapters"`, low-rank changes, which are
        merged into the weights at the end.
    steps
        Gradient steps, each on `batch` windows.
    minutes
        Instead of `steps`: as many as there is time for.
    learning_rate
        At its peak, after 5 steps; it then falls as a cosine. By default as suits `learns`.
    seed
        The same seed gives the same model on the same computer, with `minutes` only if as many steps were taken.
    classes
        Names by label value, background first, where new structures are to be learnt; those the model has keep what it knows.
    scale
        Of the intensities of the scan, if the images are slices of one; fitted to each image by default.
    folder
        For checkpoints: the same call after a crash goes on from there. By default, nothing is kept of a crash.
    progress, cancel
        Told about, and looked at before, every step. A `Control` as `cancel` can also pause, and stop with the best so far.
    on_step
        Called after every step with `step`, `steps`, `loss` and `training`, the Dice of each structure on its windows; and
        whenever held-out cases were looked at, with `step`, `steps` and `validation`, the Dice of each structure there.

    Returns
    -------
    Model
        The new version, stored beside the old ones: the state that was best on the held-out cases, the last without any.

    Raises
    ------
    BadTrainingData
        If there is nothing to learn from, a patient is both learnt from and held out, or a mask does not fit its image or
        the model.
    Cancelled
        If `cancel` was set; nothing is stored.
    """
    if (
        steps < 1
        or batch < 1
        or not (learning_rate is None or learning_rate > 0)
        or not (minutes is None or minutes > 0)
    ):
        span = f"{steps} steps" if minutes is None else f"{minutes:g} minutes"
        rate = "" if learning_rate is None else f" at a learning rate of {learning_rate:g}"
        raise BadTrainingData(
            f"{span} on {batch} windows{rate} teach nothing",
            remedy="choose at least one step, one window, and a learning rate above 0",
        )
    report, tell = progress or silent, on_step or (lambda event: None)
    given = [case if isinstance(case, Correction) else Correction(*case, scale=scale) for case in cases]
    check_patients(given)
    report(0, 1, "Preparing the images")
    net, card = copy.deepcopy(model.net), model.card
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if classes is not None and tuple(classes) != card.classes:
            net, card = with_classes(model, tuple(classes))
        samples = [to_corrected(_labelled(case, model), card, name=str(n)) for n, case in enumerate(given)]
        learning = [s for s, case in zip(samples, given, strict=True) if not case.held_out]
        held_out = [s for s, case in zip(samples, given, strict=True) if case.held_out]
        if not any(sample.seen for sample in learning):
            raise BadTrainingData("Nothing of the images was reviewed", remedy="say which parts of a mask are right")
        plan = _plan(card, learns, None if minutes else steps, minutes, batch, learning_rate, seed)
        _choose(net, card, plan)
        place = None if folder is None else folder / f"{_digest(model, plan, samples)}.pt"
        tuning = Tuning(net, plan, learning, held_out, checkpoint=place)
        try:
            state = tuning.run(report, cancel, tell)
        except Cancelled:
            tuning.forget()
            raise
    merge(net).load_state_dict(state)
    count = sum(case.group != "rehearsal" and not case.held_out for case in given)
    notes = [f"Learnt from {count} corrected image{'s' if count > 1 else ''} in {tuning.step} steps."]
    notes += _remarks(tuning, learning, held_out)
    card = card.model_copy(update={"one_piece": _whole(card, given)})
    version = save_version(replace(model, card=card), net.eval(), notes=notes)
    tuning.forget()
    report(tuning.steps, tuning.steps, f"Stored as {version.card.key}")
    return version


def _whole(card: ModelCard, cases: Sequence[Correction]) -> tuple[str, ...]:
    """Which structures still come in one piece, now that people have drawn them."""
    drawn = [np.asarray(case.labels) for case in cases if case.group != "rehearsal"]
    values = ((name, card.classes.index(name)) for name in card.one_piece)
    return tuple(name for name, value in values if all(is_one_piece(labels == value) for labels in drawn))


@dataclass(frozen=True)
class TuningCost:
    """What a fine-tuning takes: seconds a step, and bytes beside the images and the model in use."""

    seconds_per_step: float
    nbytes: float


def fine_tuning_cost(model: Model, *, learns: Learns = "everything", batch: int = 2) -> TuningCost:
    """Measure two steps on windows of noise; the model is not changed.

    What the forward pass keeps for the backward pass is counted, and the second step is timed.
    """
    plan = _plan(model.card, learns, 1, None, batch, None, 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = copy.deepcopy(model.net)
        _choose(net, model.card, plan)
        optimiser = torch.optim.AdamW(parameter_groups(net, 0.0), lr=0.0)
        images = torch.rand(batch, model.card.in_channels, *plan.window, device=model.device)
        shape = (batch, *((model.card.chances,) if plan.overlapping else ()), *plan.window)
        labels = torch.full(shape, 1 << 6, device=model.device)
        positions = torch.zeros(batch, len(plan.window), device=model.device)
        criterion = WeightedLoss(overlapping=plan.overlapping)
        began = time.monotonic()
        for _ in range(2):
            began = time.monotonic()
            with frozen_norms(net), keeping(net) as kept:
                net_loss(net, images, labels, criterion, positions=positions).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad()
            float(images[(0,) * images.ndim])  # waits for a GPU
        seconds = time.monotonic() - began
    weights = sum(p.nbytes for p in net.parameters())
    learnt = sum(p.nbytes for p in net.parameters() if p.requires_grad)
    return TuningCost(seconds, weights + 3 * learnt + OVERHEAD * kept.nbytes)


def with_classes(model: Model, classes: tuple[str, ...]) -> tuple[nn.Module, ModelCard]:
    """A network for other classes with all weights of a model that fit; what a class of the same name had is kept.

    Raises
    ------
    BadTrainingData
        If the background is not first, a name stands twice, or structures of the model overlap.
    """
    old = model.card
    if old.overlapping or len(set(classes)) < len(classes) or classes[:1] != old.classes[:1] or len(classes) < 2:
        raise BadTrainingData(
            f"{old.title} cannot learn the classes {', '.join(classes)}",
            remedy=f"name {old.classes[0]} first and each structure once; a model of overlapping structures keeps its own",
        )
    options = old.net_options | {"num_classes": len(classes)}
    net = create_net(old.architecture, **options)
    state, known = net.state_dict(), model.net.state_dict()
    pairs = [(new, old.classes.index(name)) for new, name in enumerate(classes) if name in old.classes]
    for name, value in state.items():
        before = known[name].to(value.device)
        if before.shape == value.shape:
            value.copy_(before)
        elif before.shape[1:] == value.shape[1:] and len(before) == len(old.classes):
            for new, index in pairs:
                value[new] = before[index]
    whole = tuple(name for name in old.one_piece if name in classes)
    card = old.model_copy(update={"classes": classes, "net_options": options, "temperature": 1.0, "one_piece": whole})
    return net.to(model.device).eval(), card


def _plan(
    card: ModelCard,
    learns: Learns,
    steps: int | None,
    minutes: float | None,
    batch: int,
    learning_rate: float | None,
    seed: int,
) -> TuningPlan:
    kind = kind_named(card.modality)
    bounded = card.intensity.kind in ("percentile", "clip", "unit")  # as the variations of pictures want their values
    if kind in ("ct", "mr"):
        how = Augmentation(preset=kind, scale=(0.9, 1.1), rotate=10.0)  # left and right may be different structures
    elif card.spatial_dims == 2:
        how = Augmentation(preset=kind if kind and bounded else "none", quarter_turns=True, mirror=(1,))
    else:
        how = Augmentation(preset="none")
    return TuningPlan(
        seed=seed,
        data=Data(folder="", weights=SHARES, foreground=FOREGROUND),
        augmentation=how,
        window=card.window,
        spacing=card.spacing,
        intensity=card.intensity,
        learns=learns,
        steps=steps,
        minutes=minutes,
        batch=batch,
        learning_rate=learning_rate or RATES.get(learns, RATES[PRESETS[0]]),
        overlapping=card.overlapping,
        structures=card.classes[1:],
    )


def _choose(net: nn.Module, card: ModelCard, plan: TuningPlan) -> None:
    images = torch.zeros(1, card.in_channels, *plan.window).to(next(net.parameters()))
    choose(net.eval(), plan.learns, images, torch.zeros(1, len(plan.window)).to(images))


def _labelled(case: Correction, model: Model) -> Correction:
    """A rehearsal case with the masks the model makes of it, if it has none."""
    if case.labels is not None:
        return case
    if case.group != "rehearsal":
        raise BadTrainingData(
            "There is an image without a mask", remedy="give the mask, or take it as a rehearsal case"
        )
    image = case.image if isinstance(case.image, Volume) else Volume.from_array(case.image)
    found = predict(model, image)
    return replace(case, image=image, labels=found.labels if found.structures is None else found.structures)


def _digest(model: Model, plan: TuningPlan, samples: Sequence[Corrected]) -> str:
    """Stands for everything that decides how a fine-tuning goes."""
    found = hashlib.sha256(f"{model.card.sha256} {plan!r}".encode())
    for sample in samples:
        found.update(sample.image.tobytes())
        found.update(sample.labels.tobytes())
    return found.hexdigest()[:32]


def _remarks(tuning: Tuning, learning: Sequence[Corrected], held_out: Sequence[Corrected]) -> list[str]:
    """What a person should know about how it went."""
    notes = []
    if not any(sample.places.keys() & set(range(1, 64)) for sample in learning):
        notes.append("The masks were empty, so the model was taught that there is nothing to find.")
    if held_out:
        notes.append(f"The state after step {tuning.best_step} was the best on {len(held_out)} held-out images.")
        if tuning.best_mean <= mean(tuning.before):
            notes.append("On the held-out images it is not better than before.")
    return notes
