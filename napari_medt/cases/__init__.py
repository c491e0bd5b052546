"""Reviews on disk and in memory: undo and redo of every change, autosave after every stroke, recovery after a crash."""

from napari_medt.cases.edited import HAND, TOOL, EditedMask
from napari_medt.cases.entry import Entry
from napari_medt.cases.folder import CaseFolder, Recovered
from napari_medt.cases.identity import CaseCard, SignOff, cases_folder, image_digest, mask_digest
from napari_medt.cases.journal import Journal
from napari_medt.cases.last_run import DoubtfulPlace, Fix, LastRun
from napari_medt.cases.log import CaseLog, Line
from napari_medt.cases.patient import former_names, patient_of
from napari_medt.cases.protection import Protection
from napari_medt.cases.report import export
from napari_medt.cases.seen import SlicesSeen
from napari_medt.cases.worklist import Item, Worklist
from napari_medt.cases.worklist_file import Doubt, Order, Screen

__all__ = [
    "HAND",
    "TOOL",
    "CaseCard",
    "CaseFolder",
    "CaseLog",
    "Doubt",
    "DoubtfulPlace",
    "EditedMask",
    "Entry",
    "Fix",
    "Item",
    "Journal",
    "LastRun",
    "Line",
    "Order",
    "Protection",
    "Recovered",
    "Screen",
    "SignOff",
    "SlicesSeen",
    "Worklist",
    "cases_folder",
    "export",
    "former_names",
    "image_digest",
    "mask_digest",
    "patient_of",
]
