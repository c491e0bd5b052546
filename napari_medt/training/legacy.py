"""Training with the names and folders of the published Medical Transformer code, so that its users can move over.

A data folder holds `img/` and `labelcol/`; a mask has its image's name with the ending `.png`, white where the object is. As
published: images divided by the largest value of their type, horizontal mirroring, cross-entropy, Adam, gates held still for
the first ten epochs. Unlike published: validation uses the running statistics and does not move them, gates and norms have no
weight decay, the mask is the class with the largest logit, colours are read as red, green, blue, grey is the mean of the
colours, and images of any size are learnt from, by random windows of `imgsize` (an image of just that size is its window).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_medt.core import BadTrainingData, Cancel, Progress, Volume, silent
from napari_medt.engine.prepare import Prepared, fit
from napari_medt.engine.running import predict
from napari_medt.engine.windows import pad_to_window
from napari_medt.io import read, read_labels
from napari_medt.measure import count
from napari_medt.nets import create_net
from napari_medt.training.checkpoints import save_state
from napari_medt.training.optimise import parameter_groups, seed_everything, training_device
from napari_medt.zoo.card import Intensity, ModelCard, slug
from napari_medt.zoo.model import Model
from napari_medt.zoo.store import save_model

NETS = {"axialunet": "axial-unet", "gatedaxialunet": "gated-axial-unet", "logo": "logo", "MedT": "medt"}
SEED = 3000  # as published
GATES_HELD = 10  # epochs, as published
WEIGHT_DECAY = 1e-5  # as published
FOREGROUND = 127  # of 255, above which a mask's pixel is the object
NO_IMAGES = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True, eq=False)
class Pair:
    """An image, ready to be cut into windows, and where the object is, `(y, x)` bool."""

    name: str
    volume: Volume
    prepared: Prepared
    inside: npt.NDArray[np.bool_]


def train_from_original_arguments(
    *,
    modelname: str = "MedT",
    imgsize: int = 128,
    batch_size: int = 1,
    epoch: int = 400,
    save_freq: int = 10,
    learning_rate: float = 1e-3,
    gray: bool = False,
    train_dataset: Path | None = None,
    val_dataset: Path | None = None,
    direc: Path | None = None,
    device: str = "auto",
    max_minutes: float | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Path:
    """Train on folders with `img/` and `labelcol/`.

    Parameters
    ----------
    modelname
        `axialunet`, `gatedaxialunet`, `logo` or `MedT`.
    imgsize
        Edge of the windows, a multiple of 16 (64 for logo and MedT).
    save_freq
        Epochs between validations; the weights with the best Dice on `val_dataset` are kept (the last without it).
    gray
        One channel instead of three.
    direc
        Gets `last.pth` at every validation, `final_model.pth` with the weights that are kept, and `model/` at the end.
    device
        `"auto"` takes a CUDA device if there is one, else the processor.
    max_minutes
        Stop in good order after so long.

    Returns
    -------
    Path
        The model folder, for `load_model`.

    Raises
    ------
    BadTrainingData
        If a folder or a mask is missing, sizes differ, or the name is unknown.
    """
    if modelname not in NETS:
        raise BadTrainingData(f"No network is called {modelname!r}", remedy="choose " + ", ".join(NETS))
    if train_dataset is None:
        raise BadTrainingData(
            "No training images were given", remedy="give --train_dataset FOLDER with img/ and labelcol/"
        )
    out = direc or Path("runs") / modelname
    if (out / "model").exists():
        raise BadTrainingData(f"{out} holds a finished model already", remedy="choose another folder with --direc")
    chosen = training_device(device)
    seed_everything(SEED)
    options: dict[str, Any] = {"img_size": imgsize, "in_channels": 1 if gray else 3, "num_classes": 2}
    net = create_net(NETS[modelname], **options).to(chosen)
    card = ModelCard(
        name=slug(out.name),
        title=f"{modelname} trained on {train_dataset.name}",
        architecture=NETS[modelname],
        net_options=options,
        classes=("background", "object"),
        channels="grey" if gray else "rgb",
        window=(imgsize, imgsize),
        intensity=Intensity(kind="unit"),
        licence="that of the images",
    )
    model = Model(card, net, chosen)
    pairs = read_pairs(train_dataset, card)
    held_out = read_pairs(val_dataset, card) if val_dataset is not None else []
    out.mkdir(parents=True, exist_ok=True)
    school = _School(model, pairs, held_out, out, batch_size, learning_rate)
    school.run(epoch, save_freq, max_minutes, progress or silent, cancel)
    notes = (f"Best Dice on {len(held_out)} validation images: {school.best:.4f}.",) if held_out else ()
    training_data = f"{len(pairs)} images of {train_dataset.name}"
    save_model(
        out / "model", card.model_copy(update={"training_data": training_data, "notes": notes}), net.eval(), half=False
    )
    return out / "model"


class _School:
    """The published loop over epochs."""

    def __init__(
        self, model: Model, pairs: list[Pair], held_out: list[Pair], out: Path, batch: int, learning_rate: float
    ) -> None:
        self.model, self.pairs, self.held_out, self.out, self.batch = model, pairs, held_out, out, batch
        self.best = -1.0
        self._rng = np.random.default_rng(SEED)
        self._gates = [p for name, p in model.net.named_parameters() if name.endswith("gates")]
        self._optimiser = torch.optim.Adam(parameter_groups(model.net, WEIGHT_DECAY), lr=learning_rate)

    def run(
        self, epochs: int, save_freq: int, max_minutes: float | None, report: Progress, cancel: Cancel | None
    ) -> None:
        """Learn; leaves the kept weights in the network."""
        net, started = self.model.net, time.monotonic()
        for number in range(1, epochs + 1):
            for gate in self._gates:
                gate.requires_grad_(number > GATES_HELD)
            message = f"epoch {number}, loss {self._epoch(cancel):.3f}"
            late = max_minutes is not None and time.monotonic() - started > 60 * max_minutes
            last = late or number == epochs
            if last or number % save_freq == 0:
                message += self._look(cancel)
            report(number, epochs, message)
            if last:
                break
        net.load_state_dict(torch.load(self.out / "final_model.pth", map_location=self.model.device, weights_only=True))

    def _look(self, cancel: Cancel | None) -> str:
        """Validate and store; gives words for the progress."""
        state = self.model.net.state_dict()
        save_state(self.out / "last.pth", state)
        score = self._dice(cancel) if self.held_out else self.best
        if score >= self.best:
            self.best = score
            save_state(self.out / "final_model.pth", state)
        return f", validation Dice {score:.3f}" if self.held_out else ""

    def _dice(self, cancel: Cancel | None) -> float:
        """Mean Dice over the held-out images, from running statistics."""
        found = (predict(self.model, pair.volume, overlap=0.25, cancel=cancel).labels for pair in self.held_out)
        return float(np.mean([count(mask, p.inside).dice for mask, p in zip(found, self.held_out, strict=True)]))

    def _epoch(self, cancel: Cancel | None) -> float:
        """Pass once through all images; gives the mean loss."""
        net, losses = self.model.net.train(), []
        for chosen in _batches(self._rng.permutation(len(self.pairs)), self.batch):
            if cancel is not None:
                cancel.check()
            drawn = [self._window(self.pairs[index]) for index in chosen]
            images, labels = (torch.stack(part).to(self.model.device) for part in zip(*drawn, strict=True))
            loss = nn.functional.cross_entropy(net(images), labels)
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(float(loss.detach()))
            if not np.isfinite(losses[-1]):
                raise BadTrainingData(
                    "The training lost its way: the loss is not a number any more",
                    remedy="choose a smaller --learning_rate",
                )
            self._optimiser.step()
        return float(np.mean(losses))

    def _window(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """A random window, half of the time mirrored."""
        window = self.model.card.window
        corner = [int(self._rng.integers(max(0, s - e) + 1)) for s, e in zip(pair.inside.shape, window, strict=True)]
        where = tuple(slice(start, start + edge) for start, edge in zip(corner, window, strict=True))
        image = torch.from_numpy(np.array(pad_to_window(pair.prepared.window(where), window)))
        labels = torch.from_numpy(pad_to_window(pair.inside[where][None].astype(np.float32), window)[0]).long()
        return (image.flip(2), labels.flip(1)) if self._rng.random() < 0.5 else (image, labels)


def _batches(order: npt.NDArray[np.intp], size: int) -> Iterator[npt.NDArray[np.intp]]:
    """Parts of `size`; a single one left over joins the part before, since a batch norm learns little from one."""
    starts = list(range(0, len(order), size))
    if size > 1 and len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        yield order[start:stop]


def read_pairs(folder: Path, card: ModelCard) -> list[Pair]:
    """All images of `img/` with their masks from `labelcol/`; hidden files and files of the system are passed over.

    Raises
    ------
    BadTrainingData
        If a folder, a mask or any image is missing, or sizes differ.
    BadImage
        If a file cannot be read or does not fit the network's channels.
    """
    images, masks = folder / "img", folder / "labelcol"
    for needed in (images, masks):
        if not needed.is_dir():
            raise BadTrainingData(
                f"{folder} has no folder {needed.name}/", remedy="give a folder with img/ and labelcol/"
            )
    there = (path for path in sorted(images.iterdir()) if path.is_file() and not path.name.startswith("."))
    pairs = [_read_pair(p, masks / f"{p.stem}.png", card) for p in there if p.name.lower() not in NO_IMAGES]
    if not pairs:
        raise BadTrainingData(f"{images} holds no images", remedy="put the images there, and their masks in labelcol/")
    return pairs


def _read_pair(image: Path, mask: Path, card: ModelCard) -> Pair:
    if not mask.is_file():
        raise BadTrainingData(
            f"{image.name} has no mask: {mask} is missing", remedy="put the mask there, or take the image out of img/"
        )
    volume = read(image)
    labels, _ = read_labels(mask)
    if volume.geometry.ndim != 2 or labels.shape != volume.spatial_shape:
        raise BadTrainingData(
            f"{image.name} has {volume.spatial_shape} pixels but its mask has {labels.shape}",
            remedy="give a mask of the same size",
        )
    limit = FOREGROUND if labels.max(initial=0) > 1 else 0  # masks of zeros and ones are taken too
    return Pair(image.name, volume, fit(volume, card), labels > limit)
