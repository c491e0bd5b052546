"""Every word the dock shows: labels, tooltips, hints and messages, in one place."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape

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
PICK = "Pick a point"
MEAN_ATTENTION = "Mean attention"

SIZE = "Brush size"
OVERLAP = "On others"
OVERLAPS = {"replace": "Replace them", "keep": "Keep them", "ask": "Ask"}
TAKE = "Take from them"
KEEP_OTHERS = "Keep them"
HISTORY_START = "Beginning"
UNDONE_TIP = "This change was undone. Click to bring it back, with all before it."
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
PICK_HINT = "Click anywhere in the picture."
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
    "previous_doubt": "Show the doubtful place before this one.",
    "next_doubt": "Show the next doubtful place, the most doubtful first.",
    "doubts": "Places where the model hesitated, the most doubtful first. Click one to go there.",
    "run": "Let the model make a mask of the picture. An existing mask is replaced; Undo brings it back.",
    "cancel": "Stop at the next safe moment. Nothing is changed.",
    "source": "Which attention layer of the network to look at. The global branch sees the whole window, the local branch a patch.",
    "head": "Each attention layer looks with several heads at once. Choose one of them, or the mean of all.",
    "pick": "While this is on, a click in the picture shows which places the model used to describe the clicked point.",
    "mean": "Show how often each place was looked at, on average over the whole picture.",
    "structures": "The structures of the mask and how large each is. Click one to paint it and to use the tools on it; click its "
    "padlock, or press the space bar, to lock it: then nothing changes it.",
    "overlap": "What happens to other structures where the brush, a tool, a model or a loaded mask meets them.",
    "take": "Let this change take the voxels it wants from the other structures. Undo gives them back.",
    "keep_others": "Leave the other structures as they are.",
    "history": "Every change of the mask. Click one to go back to the time right after it.",
    "size": "Diameter of the brush and the eraser, in pixels.",
    "brush": "Paint the chosen label with napari's brush. Press B on the mask layer for the same.",
    "erase": "Erase with napari's eraser.",
    "fill": "Fill a connected area with the chosen label.",
    "move": "Put the tool away: dragging moves the picture again.",
    "between": "Fill the empty slices between those on which the structure was drawn.",
    "islands": "Remove the pieces of the structure that are smaller than this.",
    "smooth": "Smooth the surface of the structure: details thinner than about twice this length vanish.",
    "grow": "Add a margin around the structure.",
    "split": "Split the structure at its necks. Click once into each part; the first keeps its name.",
    "holes": "Fill the background that the structure encloses.",
    "copy": "Make the structure on the next or the previous slice what it is on the one that is shown.",
    "more_tools": "The other tools.",
    "ball_brush": "Paint, or erase, with a ball: in a volume it reaches to the slices beside the one that is shown.",
    "range_brush": "Paint only where the intensity of the picture lies in a range.",
    "level": "Follow lines of equal grey: move over the edge of a structure, and click to fill what the line encloses.",
    "threshold": "Mark what lies in a range of intensities. Within the structure itself, remove what lies outside the range.",
    "largest": "Remove all pieces of the structure but the largest.",
    "remove_island": "Remove the piece that you click.",
    "keep_island": "Remove all pieces of a structure but the one that you click.",
    "give_island": "Give the piece that you click to another structure.",
    "shrink": "Take a margin off the structure.",
    "hollow": "Leave only a shell of the structure.",
    "median": "Remove details of the surface that are narrower than half of this length.",
    "smooth_all": "Smooth all structures together, so that neither gaps nor overlaps arise between them.",
    "cut": "Cut the structure along a line that you draw across it, in a volume on every slice.",
    "merge": "Make the structure a part of another.",
    "relabel": "Give the structure a label that no other has.",
    "combine": "Add another mask of the viewer to the structure, subtract it, or keep what lies in both.",
    "tool_length": "How far, in the unit of the picture.",
    "tool_size": "Pieces smaller than this are removed.",
    "tool_low": "The darkest intensity that counts.",
    "tool_high": "The brightest intensity that counts.",
    "tool_which": "What the tool works on.",
    "tool_act": "Whether the brush paints or erases.",
    "tool_diameter": "Of the brush, in the unit of the picture.",
    "tool_way": "How the tool does it.",
    "tool_to": "The structure that gets the voxels.",
    "tool_within": "Where the tool looks.",
    "tool_mask": "The other mask: any layer of labels of the same size.",
    "apply": "Make the change that is shown, as one step that Undo takes back.",
    "cancel_tool": "Put the tool away. What is shown is not done.",
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

# ----------------------------------------------------------------------------------------------------------------- tools

MORE_TOOLS = "More tools"
APPLY = "Apply"
CLOSE_TOOL = "Close"
TOOL_NAMES = {
    "between": "Between slices",
    "islands": "Islands",
    "smooth": "Smooth",
    "grow": "Grow",
    "split": "Split",
    "holes": "Holes",
    "copy": "Copy slice",
    "ball_brush": "Ball brush",
    "range_brush": "Range brush",
    "level": "Level tracing",
    "threshold": "Threshold",
    "largest": "Keep the largest island",
    "remove_island": "Remove an island",
    "keep_island": "Keep an island",
    "give_island": "Give an island away",
    "shrink": "Shrink",
    "hollow": "Hollow",
    "median": "Median",
    "smooth_all": "Smooth all together",
    "cut": "Cut along a line",
    "merge": "Merge",
    "relabel": "Relabel",
    "combine": "Combine with a mask",
}
TOOL_GROUPS = {"brushes": "Brushes", "islands": "Islands", "surface": "Surface", "structures": "Structures"}
TOOL_OPTIONS = {
    "length": "Length",
    "size": "Smaller than",
    "low": "From",
    "high": "To",
    "which": "For",
    "act": "Do",
    "diameter": "Diameter",
    "way": "How",
    "to": "Becomes",
    "within": "Where",
    "mask": "Mask",
}
TOOL_CHOICES = {
    "one": "This structure",
    "all": "All structures",
    "paint": "Paint",
    "erase": "Erase",
    "closed": "Closed on all sides",
    "slices": "On each slice",
    "next": "To the next slice",
    "previous": "To the previous slice",
    "inside": "Inside the surface",
    "middle": "On both sides of it",
    "outside": "Around it",
    "disc": "On this slice",
    "ball": "As a ball",
    "add": "Add",
    "subtract": "Subtract",
    "intersect": "Keep what lies in both",
}
TOOL_CLICKS = {
    "point": "Click the piece in the picture.",
    "points": "Click into each part, in the picture.",
    "line": "Draw a line across the structure, with the mouse button held.",
    "hover": "Move over the edge of what you mean, then click.",
    "stroke": "Paint in the picture.",
}
STROKES = {"ball_brush": "ball brush", "range_brush": "range brush"}
NEW_STRUCTURE = "New: label {label}"
EVERYWHERE = "Everywhere"
ON_THIS_SLICE = "On this slice"
WITHIN = "Within {name}"
TOOL_WORKING = "Working it out …"
CLICK_FIRST = "This takes one click more in the picture"
NO_GREY = "This tool works on grey pictures, and this one is in colour"
NO_OTHER_MASK = "No other layer of labels in the viewer has the size of this mask"
ONLY_VOLUMES = "This tool works on volumes, and this picture has no slices."
OUTLOOK = {1: "adds", 2: "removes", 3: "changes the structure of"}
RULES_CHANGED = "Locks or the choice for others changed since this was worked out"
WORK_OUT_AGAIN = "work it out again"

KEYS = {
    "W": "between",
    "I": "islands",
    "S": "smooth",
    "G": "grow",
    "T": "split",
    "H": "holes",
    "C": "copy",
    "O": "ball_brush",
    "R": "range_brush",
    "U": "level",
    "N": "next_structure",
    "Q": "lock_structure",
    "Y": "apply",
    "D": "cancel_tool",
}
"""Keys of step 3 while the mask is the active layer; napari's own labels layer uses none of them."""

# -------------------------------------------------------------------------------------------------------------- messages

STARTING = "Starting the calculation process …"
ATTENTION_FIRST = "Run the model first; then a click is answered at once."
RUN_NAME = "model run"
LOADED_NAME = "loaded mask"
RESTORED_NAME = "restored mask"
STROKE_NAMES = {"paint": "brush", "erase": "eraser", "fill": "fill", "polygon": "polygon"}
OTHER_EDIT = "edit"
FROZEN = "a frozen region"
LOCKED_REMEDY = "unlock it first"
NO_ATTENTION = "This model shows no attention."
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
RESTORED = "The mask from {when} is back, with its history: Undo goes on where you left off."
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
        said = f"{size:.3g} { ({'um': 'µm'}.get(unit, unit)) }{'²³'[axes - 2]}"
    return f"{number}.  {name or BACKGROUND}, {said}, unsure by {share * 100:.0f} %"


def source_name(source: str) -> str:
    """Name an attention block for people: `"global.layer1.0"` becomes `"Global, stage 1, block 1"`."""
    parts = source.split(".")
    branch = {"global": "Global", "local": "Local"}.get(parts[0], "")
    rest = parts[1:] if branch else parts
    words = [branch] if branch else []
    for part in rest:
        if part.isdigit():
            words.append(f"block {int(part) + 1}")
        elif part.startswith("layer") and part[5:].isdigit():
            words.append(f"stage {part[5:]}")
        else:
            words.append(part.replace("_", " "))
    name = ", ".join(words)
    return name[:1].upper() + name[1:]


def head_name(head: int | None) -> str:
    """Name an attention head for people, counted from 1."""
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


def label_name(label: int) -> str:
    """Name a structure that has no name."""
    return f"label {label}"


def over_others(name: str) -> str:
    """Name a change that takes voxels from other structures after the user was asked."""
    return f"{name} over others"


def locked_step(*, back: bool, names: Sequence[str]) -> str:
    """Say that a step through the history would change what is locked."""
    return f"{UNDO if back else REDO} would change {_listed(names)}, which is locked"


def _listed(words: Sequence[str]) -> str:
    """Join words: `"a"`, `"a and b"`, `"a, b and c"`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def extent(voxels: int, spacing: Sequence[float], units: str) -> str:
    """Say how large something is in the unit of its picture: `"26 ml"`, `"340 mm³"`, `"1 200 px"`; nothing for nothing."""
    axes = len(spacing)
    size = voxels
    if units != "px":
        size = voxels * math.prod(spacing)
    if not voxels:
        return "–"
    if units == "mm" and axes == 3 and size >= 100:
        return f"{_short(size / 1000)} ml"
    return f"{_short(size)} { ({'um': 'µm'}.get(units, units)) }{'²³'[axes - 2] if units != 'px' else ''}"


def _short(number: float) -> str:
    """Three digits where there are fewer, and thin spaces between thousands."""
    return f"{number:,.0f}".replace(",", "\u2009") if number >= 100 else f"{number:.3g}"


def structure_tip(name: str, label: int) -> str:
    """Say what a click on a structure does."""
    return f"{name}, label {label}. Click to paint it and to use the tools on it."


def lock_tip(name: str, *, locked: bool) -> str:
    """Say what a click on a padlock does."""
    if locked:
        return f"{name} is locked: no brush, tool, model or undo changes it. Click to unlock it."
    return f"Click to lock {name}, so that nothing changes it."


def overlap(change: str, taken: Mapping[str, str]) -> str:
    """Say what a change left to other structures, until the user answers."""
    said = _listed([f"{size} of {name}" for name, size in taken.items()])
    return f"{change[:1].upper()}{change[1:]} would also take {said}. They were kept."


def key_of(name: str) -> str:
    """Return the key of a tool; empty without one."""
    return next((key for key, named in KEYS.items() if named == name), "")


def with_key(tip: str, name: str) -> str:
    """Add the key of a tool to its tooltip."""
    return f"{tip} Key {key_of(name)}." if key_of(name) else tip


def menu_entry(name: str) -> str:
    """Name a tool in a menu, with its key."""
    return f"{TOOL_NAMES[name]}\t{key_of(name)}" if key_of(name) else TOOL_NAMES[name]


def with_names(text: str, names: Mapping[int, str]) -> str:
    """Say a sentence of a tool with the names of the structures, safe where rich text is shown."""
    return escape(re.sub(r"\b[Ll]abel (\d+)", lambda found: names.get(int(found[1]), found[0]), text))


def outlook(sizes: Mapping[int, str], colours: Mapping[int, str], asks: Sequence[str]) -> str:
    """Say what a tool would do, each part behind a square of the colour it is shown in."""
    said = ", ".join(
        f"<span style='color:{colours[kind]}; background:#404040'>&nbsp;■&nbsp;</span> {OUTLOOK[kind]} {size}"
        for kind, size in sizes.items()
    )
    question = f". You will be asked about {escape(_listed(asks))}" if asks else ""
    return f"{said}{question}."
