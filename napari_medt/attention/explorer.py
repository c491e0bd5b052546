"""Where a model looked: for one place, for a structure, and over the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from napari_medt.attention.heads import agreement, head_rows
from napari_medt.attention.keeping import Kept
from napari_medt.attention.maps import NO_CAUSE, lay, looks_of
from napari_medt.attention.scene import Scene
from napari_medt.attention.sources import STILL, Source, state_of
from napari_medt.attention.structures import Looks, still
from napari_medt.attention.whole import Whole
from napari_medt.core import AttentionMap, BadImage, Cancel, HeadRow, Progress, Volume, silent
from napari_medt.engine.planes import Plane
from napari_medt.engine.prepare import Scale
from napari_medt.engine.windows import Floats
from napari_medt.zoo.model import Model


class AttentionExplorer:
    """Answers where a model looked, for any place of one image.

    A window is passed through the network when one of its places is first asked about; its queries and keys are kept, oldest
    forgotten first, so that further questions take milliseconds. Attention itself is never stored. Windows lie, and are blended
    with the very weights, as in `predict`.

    Parameters
    ----------
    model
        A model whose network shows its attention.
    image
        As for `predict`: an image, a scan, or a scan for a 2D model, which goes through it slice by slice.
    overlap
        Of neighbouring windows, as in `predict`.
    scale
        Of the intensities of the scan, if the image is a slice of one; fitted to the image by default.
    plane
        Of the slices for a 2D model, as in `predict`.
    memory_mb
        Upper bound for what is kept to answer quickly, and again for the maps of one call of `overviews` or `structure`, which
        are coarser where they would take more.

    Raises
    ------
    BadModel
        If the network shows no attention.
    BadImage
        As of `predict`.
    """

    def __init__(
        self,
        model: Model,
        image: Volume | npt.ArrayLike,
        *,
        overlap: float | None = None,
        scale: Scale | None = None,
        plane: Plane | None = None,
        memory_mb: float = 256,
    ) -> None:
        self._scene = Scene(model, image, overlap=overlap, scale=scale, plane=plane)
        self._budget = int(memory_mb * 2**20)
        self._kept = Kept(self._scene, self._budget)

    def catalogue(self) -> tuple[Source, ...]:
        """What can be asked, with kind, heads and level, from the input towards the output."""
        return tuple(self._scene.sources.values())

    def sources(self) -> tuple[str, ...]:
        """Names of what can be asked, from the input towards the output."""
        return tuple(self._scene.sources)

    def heads(self, source: str) -> int:
        """Number of attention heads of a source; 1 where there are none."""
        return self._scene.source(source).heads

    @property
    def windows(self) -> int:
        """How many windows the image is cut into; of a scan under a 2D model, those of all slices."""
        return len(self._scene)

    def warm(self, *, progress: Progress | None = None, cancel: Cancel | None = None) -> None:
        """Pass windows through the network until all are kept or the memory is full, so that the first click is quick."""
        report, scene = progress or silent, self._scene
        names = self.catalogue()[-1].parts
        before = self._kept.nbytes
        for done, job in enumerate(scene.jobs()):
            if cancel is not None:
                cancel.check()
            report(done, len(scene), "Preparing attention")
            if self._kept.held(job, names) is not None:
                continue
            self._kept.get(job, names)
            each, before = self._kept.nbytes - before, self._kept.nbytes
            if each <= 0 or not self._kept.fits(each):
                break
        report(len(scene), len(scene), "Attention is ready")

    def forget(self) -> None:
        """Let go of what is kept to answer quickly, as when the picture moves on."""
        self._kept.clear()

    @torch.inference_mode()
    def pick(self, query: Sequence[int], *, source: str, head: int | None = None) -> list[AttentionMap]:
        """Where the network looked to describe one place.

        Parameters
        ----------
        query
            Array index `(y, x)` or `(z, y, x)` of the image.
        source
            One of `sources()`.
        head
            Counted from 0, or `None` for the mean over heads.

        Returns
        -------
        list of AttentionMap
            Over the cells of the window that the network saw, first the whole map, which sums to 1 over what the place could
            look at, or the gate. Then its parts, where it has any. Of an axial block, the row and the column through the place:
            height attention runs before width attention, so the whole is their product, the exact weight of every position's
            value. Of a `"composed"` source, what the place took from its own window, what by way of the tokens of windows, and
            what from the volume, which add up to 1.

            A map of a scan by a 2D model is a slice of it. Every map says in `extras` where its window and its strongest places
            are.

        Raises
        ------
        BadImage
            If the point lies outside the image, or where the model did not look.
        BadModel
            If there is no such source or head.
        """
        scene, chosen = self._scene, self._scene.source(source)
        scene.check_head(chosen, head)
        query = tuple(int(q) for q in query)
        voxel = scene.voxel(query)
        job = scene.nearest(voxel)
        state = state_of(chosen, self._kept.get(job, chosen.parts))
        looks = looks_of(chosen, state, scene.cell(voxel, job, state.grid))
        return [lay(scene, look, job, source=chosen, head=head, grid=state.grid, query=query) for look in looks]

    def overview(
        self, source: str, head: int | None = None, *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> AttentionMap:
        """How much attention every place of the image received, on average over all places that looked; or the gate.

        See `overviews`, which makes several maps in the time of one.
        """
        return self.overviews([source], head, progress=progress, cancel=cancel)[0]

    def overviews(
        self,
        sources: Sequence[str] | None = None,
        head: int | None = None,
        *,
        each_head: bool = False,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> list[AttentionMap]:
        """Maps of the whole image, of several sources in one pass through those of its windows that are not kept.

        Windows are stitched with the weights of the prediction. Of attention, 1 is what even attention would give and 3 is three
        times as much, so that maps can be shown with the same limits. A gate is the mean over channels, 0 to 1. Channel
        attention looks at no place: its map is how strongly it changed each place.

        Parameters
        ----------
        sources
            Of `sources()`; all by default.
        head
            Counted from 0; the mean over heads by default.
        each_head
            A map for every head instead.
        progress, cancel
            Told about, and looked at before, every batch of windows.

        Returns
        -------
        list of AttentionMap
            In the order of the sources, on the model's grid; where all together would take more than `memory_mb`, on a coarser one.
        """
        chosen = [self._scene.source(name) for name in (self.sources() if sources is None else sources)]
        whole = self._whole(chosen, head, each=each_head, progress=progress, cancel=cancel)
        return [found for source in chosen for found in whole.maps(source)]

    def agreement(
        self,
        source: str,
        query: Sequence[int] | None = None,
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> AttentionMap:
        """On which places the heads of a source agree, over the whole image or for one place: 1 where all give it the same.

        It is the geometric mean of the heads over their mean, near 0 where one head alone looks.
        """
        chosen = self._scene.source(source)
        if query is None:
            values, geometry = self._whole([chosen], None, each=True, progress=progress, cancel=cancel).values(chosen)
            made = AttentionMap(agreement(values), geometry, source, "agreement")
        else:
            picked = [self.pick(query, source=source, head=head)[0] for head in range(chosen.heads)]
            values = np.stack([found.data for found in picked])
            made = replace(picked[0], data=agreement(values), kind="agreement", head=None, even=None, extras={})
        return replace(
            made, caption=f"1 where all heads give a place the same, near 0 where one alone does. {NO_CAUSE}"
        )

    @torch.inference_mode()
    def structure(
        self,
        mask: npt.ArrayLike,
        *,
        source: str,
        head: int | None = None,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> AttentionMap:
        """Where the network looked to describe a structure: the mean over its voxels, in one pass over the windows it lies in.

        Every voxel is described by the windows around it, by the shares that they have in its prediction. 1 is what a place would
        get if one window looked at it evenly.

        Parameters
        ----------
        mask
            `(*spatial)` of the image, true in one label or one connected part of it; see `comparing.component`.
        source, head, progress, cancel
            As of `overviews`.

        Raises
        ------
        BadImage
            If the mask is not of the image, is empty, or the model did not look there.
        """
        chosen = self._scene.source(source)
        self._scene.check_head(chosen, head)
        inside = np.asarray(mask, dtype=bool)
        if inside.shape != self._scene.volume.spatial_shape:
            sizes = (" x ".join(map(str, shape)) for shape in (inside.shape, self._scene.volume.spatial_shape))
            raise BadImage("The mask is {}, but the image is {}".format(*sizes), remedy="give a mask of this image")
        if chosen.kind in STILL:
            return still(self._scene, self.overview(source, progress=progress, cancel=cancel), inside)
        found = Looks(self._scene, self._kept, chosen, head, self._budget)
        return found.run(inside, progress or silent, cancel)

    def window_input(self, index: int) -> Floats:
        """What the network sees of one window, `(c, *window)` after intensity treatment and padding."""
        return self._scene.window_input(next(islice(self._scene.jobs(), index, None)))

    def _whole(
        self,
        sources: Sequence[Source],
        head: int | None,
        *,
        each: bool = False,
        progress: Progress | None,
        cancel: Cancel | None,
    ) -> Whole:
        for source in sources:
            self._scene.check_head(source, head)
        whole = Whole(self._scene, sources, head=head, each=each, budget=self._budget, kept=self._kept)
        whole.run(progress or silent, cancel)
        return whole

    def head_table(
        self,
        sources: Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> list[HeadRow]:
        """One row a head of every source (or of those named): how widely and how far it looks, on average over the image."""
        chosen = [self._scene.source(name) for name in (self.sources() if sources is None else sources)]
        return head_rows(self._scene, chosen, progress=progress, cancel=cancel)


def attention_maps(
    model: Model,
    image: Volume | npt.ArrayLike,
    source: str | None = None,
    query: Sequence[int] | None = None,
    *,
    head: int | None = None,
    plane: Plane | None = None,
) -> list[AttentionMap]:
    """Attention of a model on an image.

    Parameters
    ----------
    model, image, plane
        As for `predict`.
    source
        For example `"global.layer1.0"`; by default all, of which `AttentionExplorer.sources` has the names.
    query
        `(y, x)` or `(z, y, x)` of a place: where the model looked to describe it. By default the mean over the image.
    head
        Counted from 0, or the mean over heads.

    Returns
    -------
    list of AttentionMap
        One map of the whole image a source; or for a query, what `AttentionExplorer.pick` gives for each source.
    """
    explorer = AttentionExplorer(model, image, plane=plane)
    chosen = explorer.sources() if source is None else (source,)
    if query is None:
        return explorer.overviews(chosen, head)
    return [found for name in chosen for found in explorer.pick(query, source=name, head=head)]
