"""Maps of the whole image, of several sources in one pass through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch

from napari_medt.attention.keeping import Kept
from napari_medt.attention.lattice import Lattice, fitting_steps
from napari_medt.attention.maps import NO_CAUSE, STILL_TEXTS, of_heads, volume_map
from napari_medt.attention.scene import Scene
from napari_medt.attention.sources import STILL, Source, state_of
from napari_medt.core import AttentionMap, Cancel, Geometry, Progress
from napari_medt.engine.blocks import Job
from napari_medt.engine.ladder import Effort
from napari_medt.engine.running import by_the_ladder, effort_for
from napari_medt.engine.windows import Floats
from napari_medt.nets.states import State
from napari_medt.nets.token_attention import VolumeState

RECEIVED = "How much each place was looked at by this layer"
USED = "How much of each place flowed into the result through all layers, if residual paths count half"


class Whole:
    """Adds up what windows say, source by source.

    Parameters
    ----------
    scene
        The image.
    sources
        Of it.
    head
        The one that is wanted; the mean over heads by default.
    each
        Every head by itself instead.
    budget
        Bytes that all maps together may take; where they would take more they are coarser.
    kept
        What is known of some windows already, which so need no pass.
    """

    def __init__(
        self,
        scene: Scene,
        sources: Sequence[Source],
        *,
        head: int | None = None,
        each: bool = False,
        budget: int,
        kept: Kept,
    ) -> None:
        self._scene, self._sources, self._head, self._each, self._budget = scene, sources, head, each, budget
        self._kept = kept
        self._lattices: dict[str, Lattice] = {}
        self._volumes: dict[str, Floats] = {}

    def run(self, report: Progress, cancel: Cancel | None) -> None:
        """Pass all windows through the network once, those that are kept not even that.

        Raises
        ------
        Cancelled
            If `cancel` was set.
        OutOfMemory
            If one window at a time was too much.
        """
        scene = self._scene
        names = list(dict.fromkeys(part for source in self._sources for part in source.parts))

        def attempt(effort: Effort, report: Progress) -> None:
            scene.effort = effort
            scene.model.net.to(effort.device)
            self._lattices.clear()
            self._volumes.clear()
            done = 0
            remaining = scene.jobs()
            while chunk := list(islice(remaining, effort.batch)):
                if cancel is not None:
                    cancel.check()
                report(done, len(scene), "Attention of the whole image")
                for job, states, sample in self._recorded(chunk, names):
                    for source in self._sources:
                        self._add(source, states, sample, job)
                done += len(chunk)
            report(done, len(scene), "Attention of the whole image is ready")

        try:
            by_the_ladder(scene.model, scene.effort, attempt, report, smallest_window=2 * max(scene.window))
        finally:
            scene.effort = effort_for(scene.model)

    def _recorded(self, jobs: Sequence[Job], names: Sequence[str]) -> Iterator[tuple[Job, dict[str, State], int]]:
        """Windows in their order, with what the network recorded and which sample of that they are."""
        held = [self._kept.held(job, names) for job in jobs]
        missing = [job for job, known in zip(jobs, held, strict=True) if known is None]
        passed = self._states(self._scene.capture(missing, names)) if missing else {}
        samples = iter(range(len(missing)))
        for job, known in zip(jobs, held, strict=True):
            yield (job, passed, next(samples)) if known is None else (job, self._states(known), 0)

    def _states(self, recorded: dict[str, State]) -> dict[str, State]:
        return {source.name: state_of(source, recorded) for source in self._sources}

    @torch.inference_mode()
    def _add(self, source: Source, states: dict[str, State], sample: int, job: Job) -> None:
        state = states[source.name]
        values = state.received(sample)
        if not self._each:
            values = values.mean(0, keepdim=True) if self._head is None or source.heads == 1 else values[[self._head]]
        found: Floats = values.float().cpu().numpy()
        if source.kind not in STILL:
            found = found * np.float32(found[0].size)  # so that even attention is 1
        if isinstance(state, VolumeState):
            mean = found / np.float32(len(self._scene))
            so_far = self._volumes.get(source.name)
            self._volumes[source.name] = mean if so_far is None else so_far + mean
            return
        if not self._lattices:
            self._begin(states)
        self._lattices[source.name].add(found, job)

    def _begin(self, states: dict[str, State]) -> None:
        flat = [source for source in self._sources if not isinstance(states[source.name], VolumeState)]
        heads = [source.heads if self._each else 1 for source in flat]
        grids = [tuple(states[source.name].grid) for source in flat]
        steps = fitting_steps(self._scene, grids, heads, budget=self._budget)
        for source, step, count in zip(flat, steps, heads, strict=True):
            self._lattices[source.name] = Lattice(self._scene, step, count)

    def values(self, source: Source) -> tuple[Floats, Geometry]:
        """`(heads, *cells)`, one head unless each is wanted, and their geometry."""
        if source.name in self._lattices:
            lattice = self._lattices[source.name]
            return lattice.values, lattice.geometry
        laid = [volume_map(self._scene, values) for values in self._volumes[source.name]]
        return np.stack([values for values, _ in laid]), laid[0][1]

    def maps(self, source: Source) -> list[AttentionMap]:
        """One map, or one for each head."""
        values, geometry = self.values(source)
        heads = range(source.heads) if self._each and source.heads > 1 else [self._head if source.heads > 1 else None]
        kind = source.kind if source.kind in STILL else "received"
        even = None if source.kind in STILL else 1.0
        return [
            AttentionMap(data, geometry, source.name, kind, head, None, _caption(source, head), even)
            for head, data in zip(heads, values, strict=True)
        ]


def _caption(source: Source, head: int | None) -> str:
    if source.kind in STILL:
        return f"{STILL_TEXTS[source.kind]}. {NO_CAUSE}"
    text = USED if source.kind == "rollout" else RECEIVED
    return f"{text}{of_heads(head, source)}; 1 is the average, what even attention would give. {NO_CAUSE}"
