"""The numbers of a run for TensorBoard, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

FOLDER = "tensorboard"
EVERY = 10  # steps


class Board:
    """Scalars over steps in a folder, which there is not unless TensorBoard is; a context that closes its files.

    Parameters
    ----------
    run
        Folder of the run.
    step
        From which it begins or goes on: what an earlier process wrote beyond it is not shown any more.
    """

    def __init__(self, run: Path, *, step: int) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(run / FOLDER), purge_step=step + 1 if step else None)

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Note numbers by name."""
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()
