"""Make the splits of the recipes but that of the nuclei: `python recipes/make_splits.py DATA`.

What an index of the images holds out is the test side. Of the rest, an eighth of the patients is drawn by a seeded shuffle,
to choose the best state of a training by.
"""

from __future__ import annotations

import sys
from pathlib import Path

from napari_medt.training.datasets import find_cases
from napari_medt.training.splits import hold_out, make_split, write_split

SEED = 2021
FOLDERS = {  # and where the masks lie in them
    "vessels": ("retina_chasedb1", "labels_1stHO"),
    "hippocampus": ("hippocampus_mri", "labels"),
    "headneck": ("headneck_ct_openkbp", "labels"),
}


def main(data: Path, out: Path = Path(__file__).parent) -> None:
    """Write the splits."""
    for name, (folder, labels) in FOLDERS.items():
        held_out = hold_out(find_cases(data / folder, labels=labels))
        write_split(make_split(held_out, SEED, (7 / 8, 1 / 8, 0.0)), out / f"{name}-split.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
