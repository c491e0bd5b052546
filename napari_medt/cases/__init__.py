"""Reviews on disk and in memory: undo and redo of every change, autosave after every stroke, recovery after a crash."""

from napari_medt.cases.entry import Entry
from napari_medt.cases.folder import CaseFolder, Recovered
from napari_medt.cases.identity import CaseCard, cases_folder, image_digest
from napari_medt.cases.journal import Journal

__all__ = ["CaseCard", "CaseFolder", "Entry", "Journal", "Recovered", "cases_folder", "image_digest"]
