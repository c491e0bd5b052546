"""Make `nuclei-split.csv` from the index of the nuclei images.

    python recipes/make_nuclei_split.py INDEX.csv

The held-out rows of the index are the test side. From the rest, of every kind of image, whole fields of view are drawn by a
seeded shuffle until at least a twelfth of that kind's images is on the validation side.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np

SEED = 2018
SHARE = 1 / 12


def main(index: Path) -> None:
    """Write the split beside this script."""
    with index.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(SEED)
    validation: set[str] = set()
    for kind in sorted({row["type"] for row in rows}):
        fields = Counter(row["group_id"] for row in rows if row["type"] == kind and row["split"] == "train")
        wanted = SHARE * fields.total()
        for field in rng.permutation(sorted(fields, key=int)):
            if wanted <= 0:
                break
            if fields[field] <= 2 * wanted:
                validation.add(str(field))
                wanted -= fields[field]
    out = Path(__file__).with_name("nuclei-split.csv")
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "group", "field", "split"])
        for row in rows:
            side = "test" if row["split"] == "val" else "validation" if row["group_id"] in validation else "train"
            writer.writerow([row["file"], row["type"], row["group_id"], side])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
