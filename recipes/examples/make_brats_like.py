"""Draw a set of images like that of the BRATS challenge: `python recipes/examples/make_brats_like.py FOLDER`.

Nothing in it is of a patient. Of each case there are four aligned MR sequences of a skull-stripped head, each on a scale of
intensities of its own, and a mask of a tumour of three parts that lie in one another: oedema, a core, and in that an
enhancing rim. Voxels are not cubes, and files are stored from right to left, so that a program that forgets either is found
out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, get_args

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_medt.training.brats import SCHEMES, SchemeName

SHAPE = (44, 40, 16)  # x, y, z
SPACING_MM = (1.5, 1.5, 3.0)
CHANNELS = {"FLAIR": "t2f", "T1w": "t1n", "t1gd": "t1c", "T2w": "t2w"}  # as the Decathlon and as BRATS 2023 call them
_TISSUE = {  # brightness in each channel
    "brain": (1.0, 1.0, 1.0, 1.0),
    "oedema": (1.7, 0.85, 0.85, 1.6),
    "core": (1.3, 0.6, 0.6, 1.8),
    "enhancing": (1.4, 0.75, 1.9, 1.3),
}
Array = npt.NDArray[Any]


def draw(rng: np.random.Generator, scheme: SchemeName) -> tuple[Array, Array]:
    """One case: `(x, y, z, 4)` float32 and labels `(x, y, z)` uint8."""
    size = np.array(SHAPE) * SPACING_MM
    place = np.stack(
        np.meshgrid(*(np.arange(n) * s for n, s in zip(SHAPE, SPACING_MM, strict=True)), indexing="ij"), -1
    )
    head = (((place - size / 2) / (0.46 * size)) ** 2).sum(-1) < 1
    middle = size / 2 + rng.uniform(-0.17, 0.17, 3) * size
    bumps = ndimage.gaussian_filter(rng.normal(size=SHAPE), [5 / s for s in SPACING_MM])
    distance = np.sqrt(((place - middle) ** 2).sum(-1)) + 2 * bumps / bumps.std()
    radius = rng.uniform(10, 15)  # mm
    parts = {
        "oedema": head & (distance < radius),
        "enhancing": head & (distance < 0.68 * radius),
        "core": head & (distance < 0.4 * radius),
    }
    labels = np.zeros(SHAPE, np.uint8)
    light = np.where(head[..., None], np.array(_TISSUE["brain"]), 0.0)
    for name, where in parts.items():
        labels[where] = getattr(SCHEMES[scheme], name)
        light[where] = _TISSUE[name]
    light += rng.normal(0, 0.12, light.shape) + ndimage.gaussian_filter(rng.normal(0, 1.2, light.shape), (3, 3, 1.5, 0))
    image = np.where(head[..., None], np.clip(light, 0.05, None) * rng.uniform(100, 1500, 4), 0)
    return image.astype(np.float32), labels


def main(folder: Path, *, cases: int = 20, scheme: SchemeName = "msd", seed: int = 2021) -> None:
    """Write the set: as the Decathlon does for the scheme `msd`, else a folder for each patient, as the challenges do."""
    affine = np.diag((-SPACING_MM[0], *SPACING_MM[1:], 1.0))
    affine[:3, 3] = origin()

    def write(array: Array, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), path)

    names = [f"BRATS_{i:03}" if scheme == "msd" else f"BraTS-GLI-{i:05}-000" for i in range(1, cases + 1)]
    for number, name in enumerate(names):
        image, labels = draw(np.random.default_rng((seed, number)), scheme)
        if scheme == "msd":
            write(image, folder / "imagesTr" / f"{name}.nii.gz")
            write(labels, folder / "labelsTr" / f"{name}.nii.gz")
            continue
        write(labels, folder / name / f"{name}-seg.nii.gz")
        for channel, ending in enumerate(CHANNELS.values()):
            write(image[..., channel], folder / name / f"{name}-{ending}.nii.gz")
    if scheme == "msd":
        listed = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
        said = {
            "name": "like BRATS",
            "modality": {str(i): name for i, name in enumerate(CHANNELS)},
            "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
            "training": listed,
        }
        (folder / "dataset.json").write_text(json.dumps(said, indent=1))


def origin() -> tuple[float, float, float]:
    """Where the first voxel lies, so that the middle of the head is at the origin."""
    x, y, z = ((n - 1) / 2 * s for n, s in zip(SHAPE, SPACING_MM, strict=True))
    return x, -y, -z


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--scheme", choices=get_args(SchemeName), default="msd")
    parser.add_argument("--seed", type=int, default=2021)
    wanted = parser.parse_args()
    main(wanted.folder, cases=wanted.cases, scheme=wanted.scheme, seed=wanted.seed)
