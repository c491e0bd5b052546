"""What is tried, one step after the other, when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "failed to allocate")


@dataclass(frozen=True)
class Effort:
    """How a prediction is run: what takes memory.

    Attributes
    ----------
    device
        Where windows go through the network.
    batch
        Windows in one pass.
    window
        Their size.
    stitch_there
        Whether they are also blended on the device, not by the processor.
    """

    device: torch.device
    batch: int
    window: tuple[int, ...]
    stitch_there: bool = False

    @property
    def stitch_device(self) -> torch.device:
        """Where windows are blended."""
        return self.device if self.stitch_there else torch.device("cpu")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, the driver or Python means that memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def free_cached(device: torch.device) -> None:
    """Give back what torch keeps of a GPU's memory for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def steps_down(effort: Effort, *, smallest_window: int) -> Iterator[tuple[Effort, str]]:
    """Ever smaller efforts, each with the sentence the user is told.

    First the processor blends the windows instead of the GPU; then fewer windows at once, down to one; then the processor does
    all the work; last windows of half the size, down to `smallest_window`, since these cost accuracy.
    """
    if effort.stitch_there:
        effort = replace(effort, stitch_there=False)
        yield effort, "The memory of the GPU ran short, so the processor put the windows together."
    while effort.batch > 1:
        effort = replace(effort, batch=effort.batch // 2)
        number = "one window" if effort.batch == 1 else f"{effort.batch} windows"
        yield effort, f"Memory ran short, so {number} at a time went through the network."
    if effort.device.type != "cpu":
        effort = replace(effort, device=torch.device("cpu"))
        yield effort, "The memory of the GPU was too small, so the processor did the work."
    while min(effort.window) // 2 >= smallest_window:
        effort = replace(effort, window=tuple(edge // 2 for edge in effort.window))
        size = " x ".join(map(str, effort.window))
        yield effort, f"Memory ran short, so windows of {size} pixels were used; the mask may be less exact."
