"""Every word the dock shows: labels, tooltips, hints and messages, in one place."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_medt.training.gate import Change
    from napari_medt.widgets.lessons import LearnAhead

TITLE = "MedT Review"

# ------------------------------------------------------------------------------------------------------- labels and hints

STEP_TITLES = {"run": "Run", "look": "Look", "correct": "Correct", "learn": "Learn", "compare": "Compare"}

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
REFERENCE = "Reference"
RIGHT_AND_WRONG = "Right and wrong"
NO_REFERENCE = (
    "none yet: a labels layer is needed. A mask opened as an image becomes one by right click, Convert to Labels."
)
AGAINST = "Against"
NOTHING = "nothing"
AGREEMENT = "Where heads agree"
HEADS = "All heads …"
KEEP = "Keep"
SAVE_MAP = "Save map …"
FIGURE = "Figure …"
SAME_COLOURS = "Same colours"
ATTENTION_LAYER = "Attention"
POINT_LAYER = "Attention: point asked about"
WINDOW_LAYER = "Attention: window the model saw"
ARROWS_LAYER = "Attention: looked at most"
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
    "difference": "More for what is wrong than for what is right",
    "right": "For what is right",
    "wrong": "For what is wrong",
}
ASKED_OF = {
    "point": "at the same point",
    "whole": "over the whole picture",
    "structure": "for the same structure",
    "piece": "for the same piece",
    "agreement": "and where their heads agree",
}
MAP_KINDS = {
    "received": "whole picture",
    "structure": "for a structure",
    "agreement": "where heads agree",
    "difference": "difference",
    "right": "for what is right",
    "wrong": "for what is wrong",
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

SIZE = "Brush size"
FREEZE = "Freeze what is in view"
NOTHING_IN_VIEW = "Nothing of the picture is in view, or it is shown in 3D. Turn to a slice of it first."
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
GO_ON_LEARNING = "Go on learning"
FORGET_LEARNING = "Forget it"

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
PRESET = "Adjust"
PRESETS = {"everything": "Everything", "last layers": "Last layers", "adapters": "Adapters"}
MINUTES = "For"
HOLD_OUT = "Only measure on this case"
PAUSE = "Pause"
GO_ON = "Go on"
STOP = "Stop, keep the best"
CURVE_STEP = "step"
CURVE_DICE = "Dice"
CURVE_LEGEND = "Thin: what it learns from. Marks: held-out cases."

COMPARE = "Compare"
VERSION = "Version"
ROLL_BACK = "Use this version"
KEEP_OLD = "Keep old"
ACCEPT_NEW = "Accept new"
INSIST = "Accept it although it is worse"
SHOW_DIFFERENCE = "Show better (blue), worse (orange)"
SIDE_BY_SIDE = "Before and after side by side"
DIFFERENCE_OF = "What changes on {name}"
DIFFERENCE_NAMES = ("", "mended", "spoilt")
BEFORE = "before"
AFTER = "after"
VIEWS = (BEFORE.capitalize(), AFTER.capitalize())
CHANGE = "change"
THIS_CASE = "This case"
ALL_STRUCTURES = "All structures"
WORSE = "worse"

ACCEPT = "Accept"
ACCEPTED = "Accepted"
SECOND_LOOK = "Second look"
SOMEBODY = "somebody"

NO_CASE = "No case is open"
OPEN_FOLDER = "Open a folder …"
FOLDER_AGAIN = "Go on with {name}"
SHOW_LIST = "Show the list"
ORDER_BY = "Order by"
ORDERS = {"name": "Name", "uncertainty": "Uncertainty", "state": "What is left to do"}
HAND_OVER = "Hand the accepted mask over …"
OPENING = "Opening {name} …"
STATES = {
    "to do": "to do",
    "draft": "draft",
    "accepted": "accepted",
    "second look": "second look",
    "unreadable": "cannot be read",
}

ABOUT = "About"

NO_IMAGE = "No image is open"
NO_IMAGE_HINT = "Open an image, or take one from File ▸ Open Sample ▸ napari-medt."
NO_MODEL = "No model was found"
NO_MASK_HINT = "A mask appears here after Run, or load one."
LOOK_HINT = "Pick a point, then click a place to see what the model looked at to describe it."
PICK_HINT = "Click anywhere in the picture, or hold Shift and move. Shift+N and Shift+H go to the next layer and head."
CORRECT_HINT = "Paint what is missing, erase what is too much."
LEARN_HINT = "Teach the model your corrected cases. It is stored as a new version; the old one stays."
COMPARE_HINT = "See what another version does better or worse before you use it."
ONE_VERSION = "There is one version of this model so far. Learn makes the next."

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
    "doubt": "How unsure places are found. The first two cost nothing; the others run the model several times and draw the mean.",
    "compute": "Run here, or on the workers of a Dask scheduler: type its address, such as tcp://host:8786.",
    "mirror": "Run on mirror images too and take the mean: often a little better, 4 times slower in 2D, 8 times in 3D.",
    "mend": "Do what is proposed.",
    "previous_doubt": "Show the doubtful place before this one. Key K.",
    "next_doubt": "Show the next doubtful place, the most doubtful first. Key J.",
    "doubts": "Places where the model hesitated, the most doubtful first. Click one to go there.",
    "run": "Let the model make a mask of the picture. An existing mask is replaced; Undo brings it back. Key Shift+R.",
    "cancel": "Stop at the next safe moment. Nothing is changed.",
    "source": "Which attention layer of the network to look at, from its input to its output. Shift+N goes to the next, "
    "Shift+B back.",
    "head": "Most layers look with several heads at once. Choose one, or the mean of all. Shift+H goes to the next, Shift+U back.",
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
    "reference": "A mask that says what is right, of this picture and with the same numbers for the same structures: any labels "
    "layer that is not ours.",
    "right_and_wrong": "Show what the model looked at for what it drew as the reference has it, and for what is missing or too "
    "much, each on average, and the difference.",
    "against": "Show how much more the chosen model looked somewhere than this one: another model, or a version before learning.",
    "agreement": "Show where all heads of this layer look alike: 1 where they all do, near 0 where one alone looks.",
    "heads": "Compare all heads of all layers in a table; a click on one shows it.",
    "head_table": "All heads; a click on a title sorts, a click on a row shows its map.",
    "keep": "Keep this map as a layer of its own, which the next one does not replace.",
    "save_map": "Write this map, with its place, as NIfTI, OME-Zarr or others.",
    "figure": "Write picture, mask, attention and unsure places of the slice that is shown side by side, for print.",
    "same_colours": "Give the next maps the same range of colours as this one, to compare them.",
    "structures": "The structures of the mask and how large each is. Click one to paint it and to use the tools on it; click its "
    "padlock, or press the space bar, to lock it: then nothing changes it.",
    "overlap": "What happens to other structures where the brush, a tool, a model or a loaded mask meets them.",
    "freeze": "Let no brush, tool, model or undo change what is in view, on this slice, any more. It is kept with the case.",
    "unfreeze": "Let everything be changed again that was frozen. Locked structures stay locked.",
    "take": "Let this change take the voxels it wants from the other structures. Undo gives them back.",
    "keep_others": "Leave the other structures as they are.",
    "history": "Every change of the mask. Click one to go back to the time right after it.",
    "size": "Diameter of the brush and the eraser, in pixels.",
    "brush": "Paint the chosen label with napari's brush. Press P on the mask layer for the same.",
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
    "learn_on": "Learn from the same cases with the same choices; it goes on from where it was last kept.",
    "learn_off": "Do not offer this again. The corrected masks stay.",
    "start_anew": "Leave the found mask aside and begin with an empty one. This forgets the found mask.",
    "preset": "What of the model is adjusted. Everything learns most; the last layers take less time and memory; adapters are "
    "small changes throughout that forget least.",
    "minutes": "How long the model learns. More time follows your masks more closely.",
    "hold_out": "Never learn from this case, so that it can tell whether a new version is better.",
    "learn": "Adjust a copy of the model to all corrected cases. The result is stored as a new version. Key Shift+L.",
    "pause": "Let the learning wait, so that the computer is free for something else.",
    "stop": "End now, and keep the state that was best on the held-out cases.",
    "cancel_learning": "Stop learning and throw away what was learnt. The model stays as it was.",
    "versions": "All versions of this model, the newest first. None is ever overwritten.",
    "compare": "Measure the version in use and the chosen one on the held-out cases and on this one. Key Shift+C.",
    "roll_back": "Use the chosen version from now on. You can change back at any time.",
    "keep_old": "Go on with the version in use. The new one stays in the list. Key Shift+O.",
    "accept_new": "Use the new version from now on. The old one stays in the list. Key Shift+Y.",
    "insist": "The new version is worse on cases it has not seen. Tick this only if you know why.",
    "side_by_side": "Open a second view below the picture with what the old and the new version draw, which moves with the first.",
    "difference": "Lay a layer over the picture: blue where the new version is right and the old was not, orange the other way.",
    "accept": "Sign this mask off: your name, the time and a digest of the mask go to the log of the case. Key A.",
    "second_look": "Leave this mask for a second look, by you later or by somebody else. Key Shift+S.",
    "previous_case": "Open the case before this one. Key Shift+K.",
    "next_case": "Open the next case. This one is kept as it is. Key Shift+J.",
    "cases_menu": "Open a folder of images, see the list of cases, change its order, or hand an accepted mask over.",
    "open_folder": "Go through all images of a folder, case by case.",
    "folder_again": "Open the folder of the last session, at the case that was open then.",
    "cases": "All cases of the folder. Click one to open it.",
    "dismiss": "Close this message.",
    "curve": "How well each structure is found: 1 is your mask exactly. Marks are held-out cases.",
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
ONLY_SLICES = "This works on the slice that is shown: switch the view to 2D."
STROKES = {"ball_brush": "ball brush", "range_brush": "range brush"}
NEW_STRUCTURE = "A new structure"
EVERYWHERE = "Everywhere"
ON_THIS_SLICE = "On this slice"
WITHIN = "Within {name}"
TOOL_WORKING = "Working it out …"
CLICK_FIRST = "This takes one click more in the picture"
NO_GREY = "This tool works on grey pictures, and this one is in colour"
NO_OTHER_MASK = "No other layer of labels in the viewer has the size of this mask"
NO_OTHER_STRUCTURE = "This mask has no other structure"
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

REVIEW_KEYS = {
    "Shift-R": "run",
    "J": "next_doubt",
    "K": "previous_doubt",
    "A": "accept",
    "Shift-S": "second_look",
    "Shift-L": "learn",
    "Shift-C": "compare",
    "Shift-Y": "accept_new",
    "Shift-O": "keep_old",
    "Shift-J": "next_case",
    "Shift-K": "previous_case",
    "Shift-N": "next_source",
    "Shift-B": "previous_source",
    "Shift-H": "next_head",
    "Shift-U": "previous_head",
}
"""Keys of the other steps, whichever layer is active; no layer of napari's uses one of them, nor does step 3."""

# -------------------------------------------------------------------------------------------------------------- messages

STARTING = "Starting the calculation process …"
ATTENTION_FIRST = "Run the model first; then a click is answered at once."
RUN_NAME = "model run"
LOADED_NAME = "mask from {name}"
RESTORED_NAME = "restored mask"
PUT_ASIDE_NAME = "found mask put aside"
STROKE_NAMES = {"paint": "brush", "erase": "eraser", "fill": "fill", "polygon": "polygon"}
OTHER_EDIT = "edit"
FROZEN = "a frozen region"
CAUGHT_UP = "All changes are kept again, also those that could not be written before."
LOCKED_REMEDY = "unlock it first"
FROZEN_REMEDY = "unfreeze it first"
NO_ATTENTION = "This model shows no attention."
LOOKING = "Looking …"
NO_STRUCTURE = "There is nothing of this structure in the mask"
NO_STRUCTURE_REMEDY = "choose another, or run the model first"
NOTHING_WRONG = "The mask is as the reference has it, so there is nothing wrong to ask about"
NOTHING_RIGHT = "Nothing of this structure is as the reference has it"
REFERENCE_REMEDY = "choose another structure or reference"
NO_POINT = "Click a point in a structure first."
RIGHT_ALONE = "What is right and what is wrong is shown for the chosen model alone, against no other."
NOTHING_TO_CHECK = "Only a map of the model itself can be checked, not a difference or an agreement."
MAP_KEPT = "Kept as {name}."
CANCELLED = "Cancelled. Nothing was changed."
IMAGE_GONE = "The image was removed or changed meanwhile, so the result was put aside. Run again on the image you want."
MASK_SAVED = "Saved as {name}."
MASK_LOADED = "Loaded {name} on {image}."
LOADED_LATE = (
    "{name} was not loaded, because {image} was closed or changed meanwhile. Load it again once {image} is open."
)
NO_SLICE = "The scan is shown in 3D, so no slice is shown"
NO_SLICE_REMEDY = "switch to 2D, or run on the whole image"
SLICE_OUTSIDE = "The slice that is shown lies outside this scan"
SLICE_OUTSIDE_REMEDY = "move to a slice of the scan"
NO_BOX = "Nothing is drawn in {name}"
NO_BOX_REMEDY = "draw a rectangle over the picture"
BOX_OUTSIDE = "What is drawn in {name} lies beside the picture"
OUTSIDE = "That point lies outside the picture."
KEPT = "Kept on this computer, {when}."
RESTORED = "The mask from {when} is back, with its history: Undo goes on where you left off."
RESTORED_OVER = (
    "The mask from {when} is back, with its locks, in the place of what was done since: Undo brings that back."
)
MODEL_GONE = "{name}, which made the mask, is not installed: Look cannot ask it, but what you correct still counts."
MODEL_CHANGED = (
    "{name} has other weights than when it made the mask: Look cannot ask it, but what you correct still counts."
)
MODEL_OTHER_VERSION = "It was made by {old}; {new} stays in use."
COMPARED_OTHER = "The comparison was of another picture or model than is chosen now, so it was put aside."
UNSURE_OF = "Unsure places of {name}"
UNANSWERED = "A mask from an earlier session was found for this picture"
UNANSWERED_REMEDY = "restore it or start anew first"
NOTHING_TO_ACCEPT = "There is no mask yet to decide on. Run or paint first."
AGAIN_DRAFT = "The mask was changed after it was decided on, so it is a draft again."
HANDED_OVER = "Written as {name}, with a record of how it came about beside it."
BUSY_NOW = "Something is still under way. Wait for it, or cancel it, before you open something else."
OPENS_LATER = "{name} opens as soon as what is under way has ended."
PAUSED = "Paused"
TOO_LONG = "What was begun had not ended after {seconds}"
CHOSEN_WORSE = "{worse} was worse than {better} on held-out cases. Use it only if you know why."
OTHER_PICTURE = "{name} shows another picture than the one its mask was drawn on"
OPEN_AGAIN = "open it again"
VERSION_GONE = "{key} is no longer there, or cannot be read. The version in use stays."
CUT_SHORT = "Learning was cut short ({name}). With the same cases open, it can go on from where it was last kept."
PICTURE_REPLACED = (
    "Another picture was put into {name}, and gets a mask of its own. The former mask stays as a hidden layer, and is offered "
    "again with the former picture."
)
IMAGE_REMOVED = "{name} was removed. Its mask stays as a layer; open the image again to go on with it."
FORGOTTEN = "The found mask was put aside. You begin with an empty one."
FORGOTTEN_LATER = "What you did stays. Undo still goes back to the found mask."


def cut_short(names: Sequence[str]) -> str:
    """Offer to go on with learning from these cases."""
    cases = names[0] if len(names) == 1 else f"{len(names)} cases"
    return f"Learning from {cases} was cut short. It can go on from where it was last kept."


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


def no_such_source(source: str, model: str) -> str:
    """Say that a model has no attention of this name, or none at all."""
    return (
        f"The model {model} has no attention called {source!r}" if source else f"The model {model} shows no attention"
    )


def sources_there(sources: Sequence[str]) -> str:
    """What can be asked for instead."""
    return f"choose one of {', '.join(sources)}" if sources else "run a model that attends first"


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
        return "more, or less where below 0"
    if kind in ("gate", "guided", "agreement"):
        return "0 to 1"
    return "times even attention" if even else "in the model's own unit"


def arrows_elsewhere(away: int, count: int) -> str:
    """Say that arrows lead to other slices than the one that is shown."""
    if not away:
        return ""
    if count == 1:
        return " The arrow leads to another slice: it ends above or below the place it means."
    which = f"All {count}" if away == count else f"{away} of the {count}"
    verb, ends = ("leads", "it ends") if away == 1 else ("lead", "they end")
    return f" {which} arrows {verb} to other slices: {ends} above or below the places meant."


def colours_mean(low: float, high: float, unit: str) -> str:
    """Say what the colours of a map stand for."""
    if unit == "0 to 1":
        return f"Colours: {low:g} to {high:g}."
    return f"Colours: {low:g} to {high:g} {unit}.".replace("-", "−")


def belief(score: float, interval: tuple[float, float] | None, chance: tuple[float, float], verdict: str) -> str:
    """Say how a map did in its check, in figures."""
    if verdict == "untestable":  # a score of what changes nothing would only mislead
        return f"{VERDICTS[verdict]}: without all that may be removed, the model draws it hardly less."
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


def model_row(title: str, version: int, better: str) -> str:
    """Name a model in the list to choose from; `better` is the version it was found to be worse than, if any."""
    name = version_name(title, version)
    return f"{name}, worse than version {better.rpartition('@')[2]}" if better else name


def has_more(this: str, that: str, asked: str) -> str:
    """Say which way a difference between the maps of two models goes, and of what the maps are, as a `Question` names it."""
    return f"Two models {ASKED_OF[asked]}: above 0 where {this} has more than {that}, below 0 where it has less."


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


def learnt(key: str, took: float, notes: Sequence[str] = ()) -> str:
    """Say what a fine-tuning stored."""
    return " ".join([f"Stored as {key} after {seconds(took)}.", *notes])


def learn_ahead(cases: int, minutes: float, known: LearnAhead | None) -> str:
    """Say what is learnt from and what that takes: `"3 corrected cases, 1 held out, about 2 min, 310 MB of memory"`."""
    corrected = cases if known is None else known.cases
    words = [f"{corrected} corrected case{'' if corrected == 1 else 's'}"]
    if known is not None:
        words.append(f"{known.held_out} held out" if known.held_out else "none held out")
    words.append(f"about {seconds(60 * minutes)}")
    if known is not None:
        memory = f"{known.memory_mb / 1000:.1f} GB" if known.memory_mb >= 1000 else f"{max(1, known.memory_mb):.0f} MB"
        words.append(f"{memory} of memory")
        steps = max(1, int(60 * minutes / max(known.seconds_per_step, 1e-3)))
        words.append(f"at most {steps} step{'' if steps == 1 else 's'}")
    return ", ".join(words)


def version(number: int, *, in_use: bool) -> str:
    """Name a version in a list."""
    return f"Version {number}, in use" if in_use else f"Version {number}"


def title_of_view(when: str, key: str) -> str:
    """Name a view of what a version draws."""
    return f"{when}: version {key.rpartition('@')[2]}"


def rolled_back(old: str, new: str) -> str:
    """Say which version is used now, and which was."""
    return f"{new} is in use now. {old} stays in the list."


def kept_old(key: str) -> str:
    """Say that nothing changed."""
    return f"{key} stays in use. The new version stays in the list."


def accepted_new(key: str) -> str:
    """Say which version is used from now on."""
    return f"{key} is used from now on. The old version stays in the list."


def held_out_heading(cases: int) -> str:
    """Name the part of the table on held-out cases."""
    return "1 held-out case" if cases == 1 else f"{cases} held-out cases"


AREA_ERROR = "Area error"
MEASURES = {"dice": "Dice", "hd95": "HD95", "surface_dice": "Surface Dice", "volume_difference": "Volume error"}


def change_words(change: Change, units: str, axes: int) -> tuple[str, str, str, str]:
    """One row of the comparison: measure with its unit, before, after, what the change lies between and which way it goes."""
    unit = {"um": "µm"}.get(units, units)
    size = {"hd95": unit, "volume_difference": "ml" if (units, axes) == ("mm", 3) else f"{unit}{'²³'[axes - 2]}"}
    name = AREA_ERROR if change.measure == "volume_difference" and axes == 2 else MEASURES[change.measure]
    if change.measure in size:
        name += f", {size[change.measure]}"
    before, after = (_score(value, change.measure) for value in (change.before, change.after))
    span = ""
    if change.low is not None and change.high is not None:
        span = f" {_signed(change.low, change.measure)} … {_signed(change.high, change.measure)}"
    return name, before, after, f"{ {'good': '▲', 'bad': '▼'}.get(change_role(change), '·') }{span}"


def change_role(change: Change) -> str:
    """`"good"` where the new version is better, `"bad"` where it is worse, else empty."""
    if change.before is None or change.after is None or change.before == change.after:
        return ""
    better = change.after > change.before
    return "good" if better == (change.measure in ("dice", "surface_dice")) else "bad"


def _score(value: float | None, measure: str) -> str:
    if value is None:
        return "–"
    if value == float("inf"):
        return "∞"
    return f"{value:.2f}" if measure in ("dice", "surface_dice") else _plainly(value, 3)


def _signed(value: float, measure: str) -> str:
    return (f"{value:+.2f}" if measure in ("dice", "surface_dice") else _plainly(value, 2, "+")).replace("-", "−")


def _plainly(value: float, digits: int, sign: str = "") -> str:
    """Write a figure with so many digits, larger ones whole, never with a power of ten."""
    whole = abs(value) >= 10**digits - 0.5
    return f"{value:{sign}.0f}" if whole else f"{round(value, 4) + 0.0:{sign}.{digits}g}"


def signed(decision: str, by: str) -> str:
    """Say what was decided, and by whom."""
    return f"Accepted by {by}." if decision == "accepted" else f"Left for a second look by {by}."


def seen(share: float) -> str:
    """Say how much of a scan was looked at."""
    return f"{share * 100:.0f} % of the slices seen"


def case_row(sign: str, name: str, state: str, uncertainty: float | None) -> str:
    """One row of the list of cases."""
    unsure = "" if uncertainty is None else f", unsure {uncertainty * 100:.1f} %"
    return f"{sign}  {name}  –  {STATES[state]}{unsure}"


def plain(text: str) -> str:
    """Return a text as it may stand in rich text."""
    return escape(text)


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


def froze(share: float) -> str:
    """Say that a part of the picture does not change any more."""
    return f"What is in view stays as it is now. {_percent(share)} of the picture is frozen."


def unfreeze(share: float) -> str:
    """Write on the button that gives frozen parts free again how much they are."""
    return f"Unfreeze ({_percent(share)})"


def locked_step(*, back: bool, names: Sequence[str]) -> str:
    """Say that a step through the history would change what is locked."""
    held = "" if list(names) == [FROZEN] else ", which is locked"
    return f"{UNDO if back else REDO} would change {_listed(names)}{held}"


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
