"""Scores of masks: pure functions on arrays."""

from napari_medt.measure.overlap import Overlap, count, dice, iou

__all__ = ["Overlap", "count", "dice", "iou"]
