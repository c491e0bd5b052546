"""Reference numbers of the released implementation and the frozen procedure that makes their weights."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

FIXTURES = Path(__file__).parent / "fixtures"
GATES = ("f_qr", "f_kr", "f_sve", "f_sv")


def recipe_tensor(name: str, shape: tuple[int, ...], kind: str, gain: float) -> np.ndarray | None:
    """Weights made from the tensor's name alone, by a stream that is the same on every numpy version."""
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    leaf = name.rpartition(".")[2]
    if leaf == "flatten_index":
        return None
    if leaf == "num_batches_tracked":
        return np.full(shape, 7, np.int64)
    if leaf == "running_mean":
        values = 0.2 * stream.standard_normal(shape)
    elif leaf == "running_var":
        values = stream.uniform(0.5, 2.0, shape)
    elif kind == "bn" and leaf == "weight":
        low, high = (0.05, 0.2) if name.endswith(".bn3.weight") else (0.5, 1.5)
        values = stream.uniform(low, high, shape)
    elif leaf == "bias":
        values = 0.1 * stream.standard_normal(shape)
    elif leaf in GATES:
        values = np.asarray(stream.uniform(0.1, 1.0, shape))
    elif leaf == "relative":
        values = stream.standard_normal(shape) / np.sqrt(shape[0] / 2)
    else:
        scale = (1.0 if "qkv_transform" in name else gain) / np.sqrt(int(np.prod(shape[1:])))
        values = scale * stream.standard_normal(shape)
    return np.asarray(values, dtype=np.float32)


def recipe_input(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Uniform values in [0, 1)."""
    return np.random.RandomState(seed).uniform(0, 1, shape).astype(np.float32)


def load(path: Path) -> tuple[dict, dict[str, torch.Tensor], np.lib.npyio.NpzFile]:
    """Meta data, state dict with the original keys, and the arrays of a reference file."""
    arrays = np.load(path, allow_pickle=False)
    meta = json.loads(str(arrays["meta"]))
    if "sd_names" in arrays.files:
        state = {str(name): torch.from_numpy(arrays[f"sd:{name}"]) for name in arrays["sd_names"]}
    else:
        made = {n: recipe_tensor(n, tuple(s), kind, meta.get("gain", 2**0.5)) for n, s, kind in meta["sd"]}
        state = {name: torch.from_numpy(value) for name, value in made.items() if value is not None}
    return meta, state, arrays


def shared_files(*names: str) -> list[Path]:
    """Large reference files, where a folder `shared` lies beside the checkout."""
    folder = Path(__file__).parents[3] / "shared" / "golden" / "2d"
    return [folder / name for name in names if (folder / name).is_file()]
