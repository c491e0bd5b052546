"""Every word the dock shows: labels, tooltips, hints and messages, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

TITLE = "MedT Review"

# ------------------------------------------------------------------------------------------------------- labels and hints

STEP_TITLES = {"run": "Run", "look": "Look", "correct": "Correct", "learn": "Learn"}

IMAGE = "Image"
MODEL = "Model"
DEVICE = "On"
UNCERTAINTY = "Mark unsure places"
RUN = "Run"
CANCEL = "Cancel"
CANCELLING = "Stopping …"

MORE = "More"
REGION = "Where"
PLANE = "Slices"
DOUBT = "Unsure by"
COMPUTE = "Compute"
MIRROR = "Also run on mirror images"
WHOLE = "The whole image"
THIS_SLICE = "Only the slice that is shown"
BOX_OF = "Only the box of {name}"
THIS_COMPUTER = "This computer"
SCHEDULER = "tcp://host:8786"
PLANES = {"": "As acquired", "axial": "Axial", "coronal": "Coronal", "sagittal": "Sagittal"}
DOUBTS = {
    "entropy": "Several classes are likely",
    "margin": "Two classes are close",
    "flips": "Mirror images disagree",
    "dropout": "Repetitions disagree",
}
FIXES = {
    "take channels": "Take it",
    "shift values": "Subtract",
    "other model": "Choose …",
    "choose region": "Choose …",
}

DOUBTFUL = "Doubtful places"
BACKGROUND = "background"

ATTENTION = "Layer"
HEAD = "Head"
ONE_HEAD = "There is only one"
PART = "Shown"
PICK = "Pick a point"
MEAN_ATTENTION = "Whole picture"
CHECK = "Check this map"
STRUCTURE = "To draw"
SHOW_STRUCTURE = "Show"
WHOLE_LABEL = "all of {name}"
THIS_PIECE = "the piece at the point"
AGAINST = "Against"
NOTHING = "nothing"
AGREEMENT = "Where heads agree"
HEADS = "All heads …"
KEEP = "Keep"
SAVE_MAP = "Save map …"
FIGURE = "Figure …"
SAME_COLOURS = "Same colours"
ATTENTION_LAYER = "Attention"
POINT_LAYER = "Point asked about"
WINDOW_LAYER = "Window the model saw"
ARROWS_LAYER = "Looked at most"
SOURCE_KINDS = {
    "gate": "gate",
    "cross": "cross-attention",
    "token": "self-attention",
    "window": "inside windows",
    "composed": "all hops together",
    "volume": "volume",
    "position": "positions",
    "channel": "channels",
    "guided": "guided features",
}
PARTS = {
    "row and column": "Row and column together",
    "row": "Row only",
    "column": "Column only",
    "composed": "All hops together",
    "in its window": "Hop 1: from the point to its window",
    "by way of tokens": "Hop 2: by way of the windows' tokens",
    "volume": "Hop 3: from the tokens to the whole volume",
}
MAP_KINDS = {
    "received": "whole picture",
    "structure": "for a structure",
    "agreement": "where heads agree",
    "difference": "difference",
    "row": "row",
    "column": "column",
    "in its window": "in its window",
    "by way of tokens": "by way of tokens",
}
VERDICTS = {
    "untestable": "Cannot be checked",
    "chance": "No better than chance",
    "slight": "Slightly better than chance",
    "clear": "Clearly better than chance",
    "strong": "Much better than chance",
}
HEADS_TITLE = "Heads of {name}"
HEAD_COLUMNS = ("", "Layer", "Head", "Spread", "Reach", "Agreement")
HEAD_COLUMN_TIPS = (
    "A small picture of the head's map. A click on a row shows it in the viewer.",
    "The attention layer of the network, from its input towards its output.",
    "Heads are counted from 1.",
    "How evenly the head looks: 0 at one place only, 1 at all places alike (entropy over its greatest value).",
    "How far away it looks, on average.",
    "How alike the heads of this layer look: 1 all at the same places, near 0 each elsewhere.",
)
MAP_ENDINGS = {".nii.gz": "NIfTI", ".ome.zarr": "OME-Zarr", ".tif": "TIFF", ".nrrd": "NRRD"}
FIGURE_FILES = "PNG, 300 dots per inch (*.png);;PDF (*.pdf)"
UNSURE_UNIT = "0 sure, 1 as unsure as can be"
PANELS = {"picture": "Picture", "mask": "Mask", "attention": "Attention", "uncertainty": "Unsure places"}

LABEL = "Label"
SIZE = "Brush size"
BRUSH = "Brush"
ERASE = "Erase"
FILL = "Fill"
MOVE = "Move"
UNDO = "Undo"
REDO = "Redo"
SAVE = "Save mask …"
LOAD = "Load mask …"
RESTORE = "Restore"
START_ANEW = "Start anew"

STEPS = "Steps"
ENDINGS = {
    ".nii.gz": "NIfTI",
    ".seg.nrrd": "Segmentation of 3D Slicer, with names",
    ".nrrd": "NRRD",
    ".mha": "MetaImage",
    ".tif": "TIFF",
    ".ome.tif": "OME-TIFF",
    ".ome.zarr": "OME-Zarr",
    ".png": "PNG",
    ".dcm": "DICOM segmentation of this series",
}
MASK_FILES = "Masks (*.nii *.nii.gz *.nrrd *.mha *.mhd *.dcm *.tif *.tiff *.png);;All files (*)"
LEARN = "Learn"
RUN_AGAIN = "Run again"

ABOUT = "About"

NO_IMAGE = "No image is open"
NO_IMAGE_HINT = "Open an image, or take one from File ▸ Open Sample ▸ napari-medt."
NO_MODEL = "No model was found"
NO_MASK_HINT = "A mask appears here after Run, or load one."
LOOK_HINT = "Click a place to see what the model looked at to describe it."
PICK_HINT = "Click anywhere in the picture, or hold Shift and move. N and H go to the next layer and head."
CORRECT_HINT = "Paint what is missing, erase what is too much."
LEARN_HINT = "Teach the model your corrected mask. It is stored as a new version; the old one stays."

# -------------------------------------------------------------------------------------------------------------- tooltips

TOOLTIPS = {
    "step_header": "Open or close this step.",
    "image": "The picture to work on. Every image layer of the viewer is listed; masks and maps made here are not.",
    "model": "The trained model that makes the mask. Versions you taught yourself are listed below the one they come from.",
    "card": "Show what this model was trained on, how well it did on images it had not seen, and where it should not be used.",
    "device": "Where the computation runs. Automatic takes a graphics card when there is one.",
    "uncertainty": "Add a layer that is bright where the model hesitated between classes.",
    "more": "Show choices that most runs do not need.",
    "region": "Run only on a part. The rest of the mask stays as it is. For a box, draw a rectangle in a Shapes layer: where "
    "it is drawn on one slice only, all slices are taken.",
    "plane": "The direction in which a model of 2D pictures goes through the scan.",
    "doubt": "How unsure places are found. The first two cost nothing; the others run the model several times.",
    "compute": "Run here, or on the workers of a Dask scheduler: type its address, such as tcp://host:8786.",
    "mirror": "Run on mirror images too and take the mean: often a little better, 4 times slower in 2D, 8 times in 3D.",
    "mend": "Do what is proposed.",
    "previous_doubt": "Show the doubtful place before this one. K.",
    "next_doubt": "Show the next doubtful place, the most doubtful first. J.",
    "doubts": "Places where the model hesitated, the most doubtful first. Click one to go there.",
    "run": "Let the model make a mask of the picture. An existing mask is replaced; Undo brings it back.",
    "cancel": "Stop at the next safe moment. Nothing is changed.",
    "source": "Which attention layer of the network to look at, from its input to its output. N goes to the next, Shift+N back.",
    "head": "Most layers look with several heads at once. Choose one, or the mean of all. H goes to the next, Shift+H back.",
    "part": "A map that is made of several steps can be shown as a whole, or step by step.",
    "pick": "While this is on, a click in the picture shows which places the model used to describe the clicked point. "
    "With Shift held, the map follows the pointer.",
    "mean": "Show how often each place was looked at, on average over the whole picture; of a scan under a 2D model, over the "
    "slice that is shown.",
    "check": "Take the places that this map marks away and see whether the model changes its mind: does the map deserve belief? "
    "Takes about a minute.",
    "stop_look": "Stop at the next safe moment.",
    "look_more": "Attention for a structure, against another model, all heads, figures and files.",
    "structure": "For which structure of the mask: all of it, or the connected piece at the point clicked last.",
    "show_structure": "Show what the model looked at to draw this structure, on average over it.",
    "against": "Show how much more the chosen model looked somewhere than this one: another model, or a version before learning.",
    "agreement": "Show where all heads of this layer look alike: 1 where they all do, near 0 where one alone looks.",
    "heads": "Compare all heads of all layers in a table; a click on one shows it.",
    "head_table": "All heads; a click on a title sorts, a click on a row shows its map.",
    "keep": "Keep this map as a layer of its own, which the next one does not replace.",
    "save_map": "Write this map, with its place, as NIfTI, OME-Zarr or others.",
    "figure": "Write picture, mask, attention and unsure places of the slice that is shown side by side, for print.",
    "same_colours": "Give the next maps the same range of colours as this one, to compare them.",
    "label": "What the brush and the fill bucket put down.",
    "size": "Diameter of the brush and the eraser, in pixels.",
    "brush": "Paint the chosen label with napari's brush. Press B on the mask layer for the same.",
    "erase": "Erase with napari's eraser.",
    "fill": "Fill a connected area with the chosen label.",
    "move": "Put the tool away: dragging moves the picture again.",
    "undo": "Take back the last change, also a run of the model. Ctrl+Z.",
    "redo": "Bring back what was undone. Ctrl+Shift+Z.",
    "save": "Write the mask, with its place and the names of its classes, as NIfTI, DICOM, NRRD, TIFF and others.",
    "load": "Take a mask of the same size, or of the same place in the patient, from a file. Undo brings the present one back.",
    "restore": "Take the mask as it was when the last session ended.",
    "start_anew": "Leave the found mask aside and begin with an empty one. This forgets the found mask.",
    "steps": "How many times the model is adjusted. More steps follow your mask more closely, and take longer.",
    "learn": "Adjust a copy of the model to this picture and your mask. The result is stored as a new version.",
    "run_again": "Run the new version on the same picture. Undo brings your corrected mask back.",
    "dismiss": "Close this message.",
    "curve": "How far the model is from your mask after each step. Lower is closer.",
}

# -------------------------------------------------------------------------------------------------------------- messages

STARTING = "Starting the calculation process …"
ATTENTION_FIRST = "Run the model first; then a click is answered at once."
RUN_NAME = "model run"
LOADED_NAME = "loaded mask"
RESTORED_NAME = "restored mask"
STROKE_NAMES = {"paint": "brush", "erase": "eraser", "fill": "fill", "polygon": "polygon"}
OTHER_EDIT = "edit"
NO_ATTENTION = "This model shows no attention."
LOOKING = "Looking …"
NO_STRUCTURE = "There is nothing of this structure in the mask"
NO_STRUCTURE_REMEDY = "choose another, or run the model first"
NO_POINT = "Click a point in a structure first."
NOTHING_TO_CHECK = "Only a map of the model itself can be checked, not a difference or an agreement."
MAP_KEPT = "Kept as {name}."
CANCELLED = "Cancelled. Nothing was changed."
IMAGE_GONE = "The image was removed or changed meanwhile, so the result was put aside. Run again on the image you want."
MASK_SAVED = "Saved as {name}."
MASK_LOADED = "Loaded {name}."
NO_SLICE = "The scan is shown in 3D, so no slice is shown"
NO_SLICE_REMEDY = "switch to 2D, or run on the whole image"
SLICE_OUTSIDE = "The slice that is shown lies outside this scan"
SLICE_OUTSIDE_REMEDY = "move to a slice of the scan"
NO_BOX = "Nothing is drawn in {name}"
NO_BOX_REMEDY = "draw a rectangle over the picture"
BOX_OUTSIDE = "What is drawn in {name} lies beside the picture"
OUTSIDE = "That point lies outside the picture."
NOTHING_TO_LEARN = "The mask is empty, so there is nothing to learn. Paint or run first."
KEPT = "Kept on this computer, {when}."
RESTORED = "The mask from {when} is back. Undo takes it away again."
FORGOTTEN = "The found mask was put aside. You begin with an empty one."


def image_words(
    spatial_shape: Sequence[int],
    *,
    dtype: str,
    colour: bool,
    spacing: Sequence[float],
    units: str,
    modality: str = "",
    value_unit: str = "",
) -> str:
    """Say what was read, for example `"256 × 256 pixels, colour, 8-bit"` or `"512 × 512 × 90, 3D, CT in HU, 3 mm a voxel"`."""
    size = " × ".join(str(n) for n in reversed(spatial_shape))
    bits = dtype.lstrip("uint")
    kind = "decimal numbers" if dtype.startswith("float") else "yes or no" if dtype == "bool" else f"{bits}-bit"
    if dtype.startswith("int"):
        kind += ", signed"
    words = [f"{size} pixels" if len(spatial_shape) == 2 else f"{size}, 3D"]
    if modality and not colour:
        words.append(f"{modality} in {value_unit}" if value_unit else modality)
    else:
        words += ["colour" if colour else "grey", kind]
    if units != "px":
        name = {"um": "µm"}.get(units, units)
        steps = [f"{s:.3g}" for s in reversed(spacing)]
        sample = "pixel" if len(spatial_shape) == 2 else "voxel"
        words.append(f"{steps[0] if len(set(steps)) == 1 else ' × '.join(steps)} {name} a {sample}")
    return ", ".join(words)


def too_large(name: str, spatial_shape: Sequence[int]) -> str:
    """Say that a mask of a picture does not fit into memory, and what to do."""
    size = " × ".join(str(n) for n in reversed(spatial_shape))
    return (
        f"{name!r} ({size}) is too large to hold its mask in memory; segment it with the command "
        "'napari-medt predict IMAGE -o MASK.ome.zarr', or crop it."
    )


def ahead(windows: int, memory_mb: float, seconds_needed: float | None) -> str:
    """Say what a run will take: `"24 windows, 310 MB, about 40 s"`; a time that is not known is left out."""
    memory = f"{memory_mb / 1000:.1f} GB" if memory_mb >= 1000 else f"{max(1, round(memory_mb))} MB"
    words = ["1 window" if windows == 1 else f"{windows} windows", f"about {memory} of memory"]
    if seconds_needed is not None:
        words.append(f"about {seconds(seconds_needed)}")
    return ", ".join(words)


def doubtful(count: int) -> str:
    """Count doubtful places in words."""
    return f"{DOUBTFUL}: {count}" if count else f"{DOUBTFUL}: none"


def doubtful_place(number: int, size: float, unit: str, axes: int, share: float, name: str) -> str:
    """Name one doubtful place: its rank, its size in the unit of the picture to the power of its axes, its mean uncertainty."""
    if unit == "mm" and axes == 3:
        said = f"{size / 1000:.2g} ml" if size >= 100 else f"{size:.2g} mm³"
    else:
        number_said = f"{size:.3g}" if size < 1000 else f"{size:.0f}"
        said = f"{number_said} { ({'um': 'µm'}.get(unit, unit)) }{'²³'[axes - 2]}"
    return f"{number}.  {name or BACKGROUND}, {said}, unsure by {share * 100:.0f} %"


def source_name(source: str, kind: str = "") -> str:
    """Name an attention block for people: `"global.layer1.0"` becomes `"Global, stage 1, block 1"`."""
    if source == "rollout":
        return "All blocks together"
    parts = [part for part in source.split(".") if part not in SOURCE_KINDS]
    words = []
    for before, part in zip(["", *parts], parts, strict=False):
        stem, number = part.rstrip("0123456789"), part[len(part.rstrip("0123456789")) :]
        if part.isdigit() and before in ("encoder", "decoder"):
            words.append(f"stage {int(part) + 1}")
        elif part.isdigit():
            words.append(f"level {part}" if not before else f"block {int(part) + 1}")
        elif number:  # blocks are counted from 0 where stages are too
            words.append(f"{_STEMS.get(stem, stem)} {int(number) + (stem == 'block' and before != '')}")
        else:
            words.append("deepest level" if part == "self" else part.replace("_", " "))
    if kind in SOURCE_KINDS:
        words.append("between windows" if source.endswith(".token") else SOURCE_KINDS[kind])
    name = ", ".join(words)
    return name[:1].upper() + name[1:]


_STEMS = {"layer": "stage"}


def map_name(source: str, kind: str, head: int | None, heads: int) -> str:
    """Name the layer of a map of a source with so many heads."""
    asked = [MAP_KINDS[kind]] if kind in MAP_KINDS else []
    heads_said = [] if kind == "agreement" or heads < 2 else [head_name(head).lower()]
    return ": ".join(["Attention", ", ".join([source_name(source, _kind_in(source, kind)), *asked, *heads_said])])


def _kind_in(source: str, kind: str) -> str:
    last = source.split(".")[-1]
    return last if last in SOURCE_KINDS else kind if kind == "gate" else ""


def unit_of_map(kind: str, even: bool) -> str:
    """Say what the values of a shown map are."""
    if kind == "difference":
        return "more or less, in times even attention" if even else "more or less"
    if kind in ("gate", "guided", "agreement"):
        return "0 to 1"
    return "times even attention" if even else "in the model's own unit"


def colours_mean(low: float, high: float, unit: str) -> str:
    """Say what the colours of a map stand for."""
    if unit == "0 to 1":
        return f"Colours: {low:g} to {high:g}."
    return f"Colours: {low:g} to {high:g} {unit}.".replace("-", "−")


def belief(score: float, interval: tuple[float, float] | None, chance: tuple[float, float], verdict: str) -> str:
    """Say how a map did in its check, in figures."""
    spread = "" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"
    figures = f"score {score:.2f}{spread}, random maps {chance[0]:.2f} to {chance[1]:.2f}".replace("-", "−")
    return f"{VERDICTS[verdict]}: {figures}."


def figure(value: float | None, unit: str = "") -> str:
    """Write a figure of a table, or a dash where there is none."""
    if value is None:
        return "–"
    if unit == "mm" and value < 0.1:
        value, unit = value * 1000, "µm"
    return f"{value:.3g} {unit}" if unit else f"{value:.2f}"


def version_name(title: str, version: int) -> str:
    """Name a model with its version, where there is more than one."""
    return f"{title}, version {version}" if version > 1 else title


def head_name(head: int | None, *, heads: int = 2) -> str:
    """Name an attention head for people, counted from 1; of a source with so many heads."""
    if heads < 2:
        return ONE_HEAD
    return "Mean of all heads" if head is None else f"Head {head + 1}"


def device_name(device: str, *, resolved: str = "") -> str:
    """Name a device for people."""
    names = {"cpu": "Processor (CPU)", "cuda": "Graphics card (CUDA)", "mps": "Graphics card (Apple)"}
    if device == "auto":
        return f"Automatic: {names.get(resolved.split(':')[0], resolved)}" if resolved else "Automatic"
    base, _, number = device.partition(":")
    return names.get(base, device) + (f" {number}" if number else "")


def seconds(duration: float) -> str:
    """Say a duration as a person would."""
    if duration < 10:
        return f"{duration:.1f} s"
    if duration < 90:
        return f"{duration:.0f} s"
    return f"{duration / 60:.0f} min" if duration < 5400 else f"{duration / 3600:.1f} h"


def time_left(duration: float) -> str:
    """Say how long it will still take, rounded so that it does not flicker."""
    if duration < 1.5:
        return "nearly done"
    rounded = round(duration) if duration < 15 else round(duration / 5) * 5
    return f"about {seconds(rounded if rounded < 10 else float(rounded)).replace('.0', '')} left"


def run_done(model: str, took: float, shares: Sequence[tuple[str, float]]) -> str:
    """Say what a run found."""
    found = ", ".join(f"{name} on {_percent(share)} of the picture" for name, share in shares if share > 0)
    return f"{model} took {seconds(took)}: {found}." if found else f"{model} took {seconds(took)} and found nothing."


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 0.001 else f"{share * 100:.1f} %" if share < 0.1 else f"{share * 100:.0f} %"


def changes(count: int, what: str = "edit") -> str:
    """Count in words: `"1 edit"`, `"12 edits"`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def found_mask(when: str, edits: int) -> str:
    """Offer a mask from an earlier session."""
    return f"A mask from {when} with {changes(edits)} was found."


def learnt(key: str, took: float, first: float | None, last: float | None) -> str:
    """Say what a fine-tuning stored."""
    fall = f" The loss went from {first:.3f} to {last:.3f}." if first is not None and last is not None else ""
    return f"Stored as {key} after {seconds(took)}.{fall}"


def wrong_size(name: str, found: Sequence[int], wanted: Sequence[int]) -> str:
    """Say that a mask does not fit the picture."""
    return (
        f"{name} is {' × '.join(str(n) for n in reversed(found))}, but the picture is "
        f"{' × '.join(str(n) for n in reversed(wanted))}"
    )


def undo_label(name: str) -> str:
    """Name the undo button after what it undoes."""
    return f"{UNDO}: {name}" if name else UNDO


def redo_label(name: str) -> str:
    """Name the redo button after what it brings back."""
    return f"{REDO}: {name}" if name else REDO


def moment(when: datetime, now: datetime) -> str:
    """Say when something was, as briefly as it stays clear: the time today, the day before that."""
    if when.date() == now.date():
        return when.strftime("%H:%M")
    day = f"{when.day} {when.strftime('%B')}"
    return f"{day}, {when.strftime('%H:%M')}" if when.year == now.year else f"{day} {when.year}"
