"""Which devices there are, and which to take."""

from __future__ import annotations

import torch

from napari_medt.core import DeviceError


def list_devices() -> list[str]:
    """Devices of this computer, fastest first: CUDA devices, Apple's GPU, the processor."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name, or the fastest for `"auto"`.

    Raises
    ------
    DeviceError
        If this computer has no such device; says which it has.
    """
    there = list_devices()
    if name == "auto":
        return torch.device(there[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in there:
        raise DeviceError(f"There is no device {name!r} on this computer", remedy="choose auto or " + ", ".join(there))
    return torch.device(wanted)
