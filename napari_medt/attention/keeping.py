"""What the network recorded of the windows that were asked about last, within a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from napari_medt.attention.scene import Scene
from napari_medt.attention.sources import owned
from napari_medt.engine.blocks import Job
from napari_medt.nets.states import State

Key = tuple[int, ...]


class Kept:
    """States by window and source, the longest unused forgotten first.

    Parameters
    ----------
    scene
        Whose windows are passed through the network when they are first asked about.
    budget
        Bytes. What one question needs is kept even if it is more.
    """

    def __init__(self, scene: Scene, budget: int) -> None:
        self._scene, self._budget = scene, budget
        self._states: OrderedDict[tuple[Key, str], State] = OrderedDict()
        self._too_many = False  # whether the sources of one window alone exceed the budget

    @property
    def nbytes(self) -> int:
        """Memory kept."""
        return sum(state.nbytes for state in self._states.values())

    @property
    def windows(self) -> int:
        """Of how many windows anything is kept."""
        return len({key for key, _ in self._states})

    def get(self, job: Job, names: Sequence[str]) -> dict[str, State]:
        """What some sources of the network recorded of one window, from memory or by a pass through the network."""
        key = _key_of(job)
        if any((key, name) not in self._states for name in names):
            found = self._scene.capture([job], names if self._too_many else None)
            self._too_many |= sum(state.nbytes for state in found.values()) > self._budget
            self._states.update({(key, name): owned(state) for name, state in found.items()})
        for name in names:
            self._states.move_to_end((key, name))
        held = self.nbytes
        while held > self._budget and len(self._states) > len(names):
            held -= self._states.popitem(last=False)[1].nbytes
        return {name: self._states[key, name] for name in names}

    def held(self, job: Job, names: Sequence[str]) -> dict[str, State] | None:
        """What is kept of one window, without a pass through the network; `None` where something is missing."""
        key = _key_of(job)
        found = {name: self._states[key, name] for name in names if (key, name) in self._states}
        return found if len(found) == len(names) else None

    def fits(self, more: float) -> bool:
        """Whether so many bytes more would be kept without forgetting anything."""
        return self.nbytes + more <= self._budget

    def clear(self) -> None:
        """Forget everything."""
        self._states.clear()


def _key_of(job: Job) -> Key:
    return (*job[0], *(part.start for part in job[1]))
