"""Codes of structures: from a plain name to the terms DICOM uses in segmentations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

_CATEGORIES = {  # lists of the standard (context groups), and the category that their terms belong to
    7192: "AnatomicalStructure",
    4: "AnatomicalStructure",
    7191: "Tissue",
    7194: "MorphologicallyAbnormalStructure",
    7193: "PhysicalObject",
    7197: "BodySubstance",
}
_SIDES = {"left": "Left", "l": "Left", "right": "Right", "r": "Right"}
_ALSO = {
    "adrenal": "adrenalgland",
    "cellnucleus": "nucleus",
    "chiasm": "opticchiasm",
    "greymatter": "graymatter",
    "nuclei": "nucleus",
    "oedema": "edema",
    "oesophagus": "esophagus",
    "parotid": "parotidgland",
    "submandibular": "submandibulargland",
    "thyroidgland": "thyroid",
    "tumor": "neoplasm",
    "tumour": "neoplasm",
    "urinarybladder": "bladder",
    "vertebrae": "vertebra",
}


@dataclass(frozen=True)
class SegmentCode:
    """What a segment is, in coded terms.

    Attributes
    ----------
    category
        What kind of thing.
    kind
        The thing itself.
    side
        Left or right, if it has one.
    """

    category: Code
    kind: Code
    side: Code | None = None


TISSUE = SegmentCode(codes.SCT.Tissue, codes.SCT.Tissue)


def code_for(name: str) -> SegmentCode:
    """Find the SNOMED CT code of a structure by its English name; plain "Tissue" where none is known.

    Parameters
    ----------
    name
        As people write it: `"parotid_left"`, `"Spinal cord"`, `"kidneys"`.

    Examples
    --------
    >>> code_for("Left kidney").kind.meaning, code_for("Left kidney").side.meaning
    ('Kidney', 'Left')
    >>> code_for("class 3").kind.meaning
    'Tissue'
    """
    words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    if found := _term(words):  # such as the left ventricle, which has a code of its own
        return SegmentCode(*found)
    for place, rest in ((0, words[1:]), (-1, words[:-1])):
        if rest and words[place] in _SIDES and (found := _term(rest)):
            return SegmentCode(*found, getattr(codes.SCT, _SIDES[words[place]]))
    return TISSUE


def _term(words: list[str]) -> tuple[Code, Code] | None:
    joined = "".join(words)
    spelt = (_ALSO.get(word, word) for word in (joined, joined.removesuffix("s")))
    return next((_terms()[word] for word in spelt if word in _terms()), None)


@cache
def _terms() -> dict[str, tuple[Code, Code]]:
    """Category and code by name, as the standard lists them for segmentations, without spaces."""
    structure = codes.SCT.AnatomicalStructure
    terms = {"nucleus": (structure, codes.SCT.Nucleus), "opticnerve": (structure, codes.SCT.OpticNerve)}
    for number, category in _CATEGORIES.items():
        group = getattr(codes, f"cid{number}")
        for keyword in group.dir():
            code = getattr(group, keyword)
            if code.scheme_designator != "SCT" or code in (codes.SCT.Normal, codes.SCT.Tissue):
                continue
            for spelt in (keyword, code.meaning):
                terms.setdefault(re.sub(r"[^a-z0-9]", "", spelt.lower()), (getattr(codes.SCT, category), code))
    return terms
