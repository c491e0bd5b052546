"""Training with the names and folders of the published Medical Transformer code, so that its users can move over.

A data folder holds `img/` and `labelcol/`; a mask has its image's name with the ending `.png`, white where the object is. As
published: images divided by 255, horizontal mirroring, cross-entropy, Adam, gates held still for the first epochs. Unlike
published: validation uses the running statistics and does not move them, gates and norms have no weight decay, the mask is
the class with the largest logit, and images of any size are learnt from, by random windows of `imgsize`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from napari_medt.core import BadTrainingData, Cancel, Progress, silent
from napari_medt.engine.windows import pad_to_window
from napari_medt.io import atomic_write, read, read_labels
from napari_medt.measure import Overlap, count
from napari_medt.nets import create_net
from napari_medt.training.optimise import parameter_groups
from napari_medt.zoo.card import Intensity, ModelCard, slug
from napari_medt.zoo.model import Model
from napari_medt.zoo.store import save_model

NETS = {"axialunet": "axial-unet", "gatedaxialunet": "gated-axial-unet", "logo": "logo", "MedT": "medt"}
GATES_HELD = 10  # epochs, as published
WEIGHT_DECAY = 1e-5
FOREGROUND = 127  # of 255, above which a mask's pixel is the object

Pair = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


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
        Epochs between validations; the weights with the best Dice on `val_dataset` are kept.
    gray
        One channel instead of three.
    direc
        Gets `last.pth` at every validation and `model/` at the end.
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
    import time

    if modelname not in NETS:
        raise BadTrainingData(f"No network is called {modelname!r}", remedy="choose " + ", ".join(NETS))
    if train_dataset is None:
        raise BadTrainingData(
            "No training images were given", remedy="give --train_dataset FOLDER with img/ and labelcol/"
        )
    report, started = progress or silent, time.monotonic()
    out = direc or Path("runs") / modelname
    if (out / "model").exists():
        raise BadTrainingData(f"{out} holds a finished model already", remedy="choose another folder with --direc")
    channels = 1 if gray else 3
    options = {"img_size": imgsize, "in_channels": channels, "num_classes": 2}
    torch.manual_seed(3000)
    rng = np.random.default_rng(3000)
    net = create_net(NETS[modelname], **options)
    pairs = read_pairs(train_dataset, channels)
    held_out = read_pairs(val_dataset, channels) if val_dataset is not None else []
    gates = [parameter for name, parameter in net.named_parameters() if name.endswith("gates")]
    optimiser = torch.optim.Adam(parameter_groups(net, WEIGHT_DECAY), lr=learning_rate)
    best, kept = -1.0, {name: value.clone() for name, value in net.state_dict().items()}
    for number in range(1, epoch + 1):
        for gate in gates:
            gate.requires_grad_(number > GATES_HELD)
        loss = _one_epoch(net, optimiser, pairs, imgsize, batch_size, rng, cancel)
        out_of_time = max_minutes is not None and time.monotonic() - started > 60 * max_minutes
        last = number == epoch or out_of_time
        message = f"epoch {number}, loss {loss:.3f}"
        if number % save_freq == 0 or last:
            score = _dice(net.eval(), held_out, imgsize) if held_out else -loss
            if score > best or not held_out:
                best, kept = score, {name: value.clone() for name, value in net.state_dict().items()}
            out.mkdir(parents=True, exist_ok=True)
            atomic_write(out / "last.pth", lambda file: torch.save(net.state_dict(), file))
            message += f", validation Dice {score:.3f}" if held_out else ""
        report(number, epoch, message)
        if last:
            break
    net.load_state_dict(kept)
    card = ModelCard(
        name=slug(out.name),
        title=f"{modelname} trained on {train_dataset.name}",
        architecture=NETS[modelname],
        net_options=options,
        classes=("background", "object"),
        channels="grey" if gray else "rgb",
        window=(imgsize, imgsize),
        intensity=Intensity(kind="unit"),
        training_data=f"{len(pairs)} images of {train_dataset.name}",
        licence="that of the images",
        notes=(f"Best Dice on {len(held_out)} validation images: {best:.4f}.",) if held_out else (),
    )
    save_model(out / "model", card, net.eval(), half=False)
    return out / "model"


def read_pairs(folder: Path, channels: int) -> list[Pair]:
    """All images of `img/` with their masks from `labelcol/`; hidden files and files of the system are passed over."""
    images, masks = folder / "img", folder / "labelcol"
    for needed in (images, masks):
        if not needed.is_dir():
            raise BadTrainingData(
                f"{folder} has no folder {needed.name}/", remedy="give a folder with img/ and labelcol/"
            )
    skipped = {"thumbs.db", "desktop.ini"}
    paths = sorted(
        p for p in images.iterdir() if p.is_file() and not p.name.startswith(".") and p.name.lower() not in skipped
    )
    if not paths:
        raise BadTrainingData(f"{images} holds no images")
    return [_read_pair(path, masks / f"{path.stem}.png", channels) for path in paths]


def _read_pair(image: Path, mask: Path, channels: int) -> Pair:
    if not mask.is_file():
        raise BadTrainingData(f"{image.name} has no mask: {mask} is missing")
    array = read(image).array
    highest = np.iinfo(array.dtype).max if array.dtype.kind in "ui" else 1
    scaled = array[:3].astype(np.float32) / np.float32(highest)
    if len(scaled) != channels:
        scaled = np.repeat(scaled, 3, axis=0) if channels == 3 else scaled.mean(0, keepdims=True)
    labels, _ = read_labels(mask)
    if labels.shape != scaled.shape[1:]:
        raise BadTrainingData(f"{image.name} has {scaled.shape[1:]} pixels but its mask has {labels.shape}")
    inside = labels > FOREGROUND if labels.max(initial=0) > 1 else labels > 0
    return scaled, inside.astype(np.int64)


def _one_epoch(
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    pairs: list[Pair],
    size: int,
    batch: int,
    rng: np.random.Generator,
    cancel: Cancel | None,
) -> float:
    net.train()
    order, losses = rng.permutation(len(pairs)), []
    for start in range(0, len(order), batch):
        if cancel is not None:
            cancel.check()
        drawn = [_window(pairs[index], size, rng) for index in order[start : start + batch]]
        images, labels = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
        loss = nn.functional.cross_entropy(net(images), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses))


def _window(pair: Pair, size: int, rng: np.random.Generator) -> Pair:
    image, labels = (
        pad_to_window(pair[0], (size, size)),
        pad_to_window(pair[1][None].astype(np.float32), (size, size))[0].astype(np.int64),
    )
    y, x = (int(rng.integers(edge - size + 1)) for edge in labels.shape)
    image, labels = image[:, y : y + size, x : x + size], labels[y : y + size, x : x + size]
    if rng.random() < 0.5:
        image, labels = image[:, :, ::-1], labels[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def _dice(net: nn.Module, pairs: list[Pair], size: int) -> float:
    """Mean Dice over images."""
    from napari_medt.engine.running import predict

    channels = pairs[0][0].shape[0]
    card = ModelCard(
        name="validation",
        title="Model in training",
        architecture="",
        net_options={},
        classes=("background", "object"),
        channels="grey" if channels == 1 else "rgb",
        window=(size, size),
        intensity=Intensity(kind="none"),
    )
    model = Model(card, net, torch.device("cpu"))
    scores = []
    for image, labels in pairs:
        found = predict(model, image[0] if channels == 1 else np.moveaxis(image, 0, -1), overlap=0.25).labels
        overlap: Overlap = count(found, labels)
        scores.append(overlap.dice)
    return float(np.mean(scores))
