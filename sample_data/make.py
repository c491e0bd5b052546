"""Make the sample pictures anew: `python -m napari_medt.sample_data.make --out FOLDER`.

The same seed gives the same pictures. Needs numpy, scipy and tifffile, nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_medt.sample_data.cells import PIXEL_UM as CELLS_UM
from napari_medt.sample_data.cells import fluorescence_field
from napari_medt.sample_data.phantom import ORGANS, SPACING_MM, ct_phantom_volume
from napari_medt.sample_data.shapes import Array
from napari_medt.sample_data.slide import PIXEL_UM as TISSUE_UM
from napari_medt.sample_data.slide import tissue_field

SEED = 20210519
"""Of the pictures that come with the package."""

PICTURES = ("fluorescence", "tissue", "ct_phantom")
"""Names of the pictures, also of their files."""


def make_picture(name: str, *, seed: int = SEED) -> dict[str, Array]:
    """Make one picture and its mask.

    Parameters
    ----------
    name
        One of `PICTURES`.
    seed
        Each picture draws from a stream of its own, so one can be made without the others.

    Returns
    -------
    dict
        File name without ending -> array; the picture first, its mask second.

    Raises
    ------
    ValueError
        If there is no picture of this name.
    """
    if name not in PICTURES:
        raise ValueError(f"There is no sample picture {name!r}; choose one of {', '.join(PICTURES)}.")
    rng = np.random.Generator(np.random.PCG64([seed, PICTURES.index(name)]))
    if name == "fluorescence":
        image, mask = fluorescence_field(rng)
        return {name: image, f"{name}_nuclei": mask}
    if name == "tissue":
        image, mask = tissue_field(rng)
        return {name: image, f"{name}_nuclei": mask}
    image, mask = ct_phantom_volume(rng)
    return {name: image, f"{name}_organs": mask}


def digest(array: Array) -> str:
    """SHA-256 of an array's shape, type and values."""
    head = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def write_picture(path: Path, array: Array) -> None:
    """Write an array as compressed TIFF with its scale, readable by ImageJ where ImageJ knows the type."""
    name = path.stem
    options: dict[str, Any] = {"compression": "zlib", "compressionargs": {"level": 9}, "metadata": None}
    if array.dtype != np.uint8 or array.ndim == 2 or array.shape[-1] == 3:
        options["predictor"] = 2
    if name.startswith("ct_phantom"):
        about = {
            "axes": "ZYX",
            "PhysicalSizeZ": SPACING_MM[0],
            "PhysicalSizeY": SPACING_MM[1],
            "PhysicalSizeX": SPACING_MM[2],
        }
        about |= {f"PhysicalSize{axis}Unit": "mm" for axis in "XYZ"}
        if name.endswith("organs"):
            about["Description"] = ", ".join(f"{label} {organ}" for label, organ in ORGANS.items())
    else:
        pixel = CELLS_UM if name.startswith("fluorescence") else TISSUE_UM
        about = {"axes": "YXS" if array.ndim == 3 else "YX", "PhysicalSizeY": pixel, "PhysicalSizeX": pixel}
        about |= {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    options["metadata"] = about
    if array.ndim == 3 and array.shape[-1] == 3:
        options["photometric"] = "rgb"
    else:
        options["photometric"] = "minisblack"
    tifffile.imwrite(path, array, ome=True, **options)


def main(arguments: list[str] | None = None) -> int:
    """Make the pictures that were asked for, and say what was written; `samples.json` keeps seed and digests."""
    parser = argparse.ArgumentParser(description="Make the sample pictures of napari-medt anew.")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder to write to (default: this one)"
    )
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the random numbers (default: {SEED})")
    parser.add_argument("--only", choices=PICTURES, action="append", help="make this picture only; may be repeated")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    record = options.out / "samples.json"
    known: dict[str, Any] = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    for name in options.only or PICTURES:
        for stem, array in make_picture(name, seed=options.seed).items():
            path = options.out / f"{stem}.tif"
            write_picture(path, array)
            known[stem] = {
                "seed": options.seed,
                "shape": list(array.shape),
                "type": str(array.dtype),
                "sha256": digest(array),
            }
            sys.stdout.write(f"{path}: {array.shape} {array.dtype}, {path.stat().st_size / 1e6:.2f} MB\n")
    record.write_text(json.dumps(dict(sorted(known.items())), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
