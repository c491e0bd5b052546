"""Tools that change masks: pure functions of label arrays, each of which gives an `Edit`."""

from napari_medt.editing.combining import combine, merge, relabel
from napari_medt.editing.edit import Edit, make_edit
from napari_medt.editing.holes import fill_holes
from napari_medt.editing.intensities import threshold, trace_level
from napari_medt.editing.islands import change_island, keep_island, keep_largest, remove_islands
from napari_medt.editing.margins import grow, hollow, shrink
from napari_medt.editing.painting import brush
from napari_medt.editing.rules import OverlapPolicy, Rules
from napari_medt.editing.slices import copy_slice, fill_between
from napari_medt.editing.smoothing import median, smooth, smooth_together
from napari_medt.editing.splitting import split_along_line, split_by_seeds

__all__ = [
    "Edit",
    "OverlapPolicy",
    "Rules",
    "brush",
    "change_island",
    "combine",
    "copy_slice",
    "fill_between",
    "fill_holes",
    "grow",
    "hollow",
    "keep_island",
    "keep_largest",
    "make_edit",
    "median",
    "merge",
    "relabel",
    "remove_islands",
    "shrink",
    "smooth",
    "smooth_together",
    "split_along_line",
    "split_by_seeds",
    "threshold",
    "trace_level",
]
