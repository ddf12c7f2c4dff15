"""The table of every action of the window: its words, keys, icon, place in the menus, what it needs."""

from dataclasses import dataclass
from typing import Literal

from PySide6.QtGui import QKeySequence

Need = Literal[
    "",
    "model",
    "plan",
    "selection",
    "importance",
    "open importance",
    "usable importance",
    "undo",
    "redo",
    "command",
    "active job",
    "resumable job",
    "memory job",
    "restartable job",
    "job folder",
    "removable job",
    "finished jobs",
]
"""What must be there for an action to make sense: an open model, its plan, selected tensors, …"""

Standard = QKeySequence.StandardKey


@dataclass(frozen=True)
class MenuSpec:
    """A menu. One that lies `inside` another stands there above the action `before`."""

    text: str
    inside: str = ""
    before: str = ""
    needs: Need = ""
    tip: str = ""


@dataclass(frozen=True)
class ActionSpec:
    """One action.

    `tip` is a sentence without its full stop. `menu` names the menu that holds the action; `rule` draws a
    line above it there. Of the actions of a `group` one is checked. The keys of a `focused` action count
    only inside the view that the action is added to, so they may be plain letters.
    """

    key: str
    text: str
    tip: str
    menu: str
    shortcuts: tuple[Standard | str, ...] = ()
    icon: str = ""
    needs: Need = ""
    group: str = ""
    checkable: bool = False
    focused: bool = False
    rule: bool = False


MENUS = {
    "File": MenuSpec("&File"),
    "Edit": MenuSpec("&Edit"),
    "Recipe": MenuSpec("&Recipe"),
    "View": MenuSpec("&View"),
    "Run": MenuSpec("R&un"),
    "Help": MenuSpec("&Help"),
    "Recent": MenuSpec("Open re&cent", "File", "close_model"),
    "Bits": MenuSpec(
        "&Bits", "Edit", "choose_format", "selection", "Store the selected tensors with so many bits"
    ),
    "Importance": MenuSpec("&Importance matrix", "Recipe", "open_recipe"),
    "Theme": MenuSpec("&Theme", "View", "reset_layout"),
}
"""Name → menu; those that lie in none make the menu bar. "Recent" is filled by the window."""

_BITS = tuple(
    ActionSpec(
        f"bits_{bits}",
        f"&{bits} bits",
        f"Store the selected tensors with {bits} bits a weight",
        "Bits",
        (str(bits),),
        needs="selection",
        focused=True,
    )
    for bits in range(2, 9)
)

ACTIONS: tuple[ActionSpec, ...] = (
    ActionSpec(
        "open_folder", "&Open folder…", "Open a Hugging Face folder", "File", (Standard.Open,), "folder-open"
    ),
    ActionSpec(
        "open_file",
        "Open &file…",
        "Open a .gguf, .safetensors or .bin file",
        "File",
        ("Ctrl+Shift+O",),
        "file",
    ),
    ActionSpec(
        "open_sample",
        "Open the sa&mple model",
        "Open the small model that ships with Bitwright",
        "File",
        (),
        "flask",
    ),
    ActionSpec(
        "close_model",
        "C&lose model",
        "Close the model and go back to the start page",
        "File",
        ("Ctrl+W",),
        "x",
        "model",
    ),
    ActionSpec("quit", "&Quit", "End Bitwright", "File", ("Ctrl+Q",), "sign-out", rule=True),
    ActionSpec(
        "undo",
        "&Undo",
        "Take back the last change of the recipe",
        "Edit",
        (Standard.Undo,),
        "arrow-u-up-left",
        "undo",
    ),
    ActionSpec(
        "redo",
        "&Redo",
        "Make the change again that was taken back",
        "Edit",
        (Standard.Redo,),
        "arrow-u-up-right",
        "redo",
    ),
    ActionSpec(
        "select_all",
        "Select &all",
        "Select every tensor that the filter shows",
        "Edit",
        (Standard.SelectAll,),
        "selection-all",
        "model",
        rule=True,
    ),
    ActionSpec(
        "filter",
        "&Filter",
        "Go to the field that filters the table",
        "Edit",
        (Standard.Find,),
        "magnifying-glass",
        "model",
    ),
    *_BITS,
    ActionSpec(
        "choose_format",
        "C&hoose format…",
        "List the formats that the selected tensors can have",
        "Edit",
        ("Q",),
        "list-bullets",
        "selection",
        focused=True,
    ),
    ActionSpec(
        "pin",
        "&Pin",
        "Keep the selected tensors as they are when a preset is chosen; again to let go",
        "Edit",
        ("P",),
        "push-pin",
        "selection",
        focused=True,
    ),
    ActionSpec(
        "apply_to_role",
        "App&ly to all of its role",
        "Give all tensors of the same role the format and method of the current one",
        "Edit",
        ("Ctrl+Return",),
        "stack",
        "selection",
        focused=True,
    ),
    ActionSpec(
        "preset",
        "&Preset…",
        "Begin the recipe from a preset; pinned tensors stay as they are",
        "Recipe",
        ("Ctrl+P",),
        "sliders-horizontal",
        "plan",
    ),
    ActionSpec(
        "metadata",
        "&Metadata…",
        "View and edit what the file will say of itself: name, author, license, chat template",
        "Recipe",
        ("Ctrl+M",),
        "identification-card",
        "plan",
    ),
    ActionSpec(
        "open_recipe",
        "&Open recipe…",
        "Take the recipe of a file",
        "Recipe",
        ("Ctrl+Alt+O",),
        "file-text",
        "plan",
        rule=True,
    ),
    ActionSpec(
        "save_recipe",
        "&Save recipe",
        "Write the recipe to its file",
        "Recipe",
        (Standard.Save,),
        "floppy-disk",
        "plan",
    ),
    ActionSpec(
        "save_recipe_as",
        "Save recipe &as…",
        "Write the recipe to another file",
        "Recipe",
        (Standard.SaveAs,),
        "floppy-disk-back",
        "plan",
    ),
    ActionSpec(
        "calibrate",
        "&Compute importance matrix…",
        "Gather how much each input column of the model matters on a text; a sheet asks first",
        "Importance",
        ("Ctrl+Shift+M",),
        "calculator",
        "plan",
    ),
    ActionSpec(
        "importance",
        "&Load importance matrix…",
        "Weigh errors by an importance matrix (GGUF or .dat)",
        "Importance",
        (),
        "scales",
        "plan",
    ),
    ActionSpec(
        "use_importance",
        "&Use it for the recipe",
        "Weigh errors by the importance matrix that is looked at",
        "Importance",
        (),
        "check",
        "usable importance",
    ),
    ActionSpec(
        "no_importance",
        "&No importance matrix",
        "Take the importance matrix out of the recipe",
        "Importance",
        needs="importance",
    ),
    ActionSpec(
        "look_importance",
        "Look at a &file…",
        "Show the statistics of an importance matrix; the recipe stays as it is",
        "Importance",
        (),
        "file",
        rule=True,
    ),
    ActionSpec(
        "view_importance",
        "&View importance matrix",
        "Show the statistics of the importance matrix",
        "Importance",
        ("Ctrl+Alt+I",),
        "chart-bar",
        "open importance",
    ),
    ActionSpec(
        "merge_importance",
        "&Merge others into it…",
        "Add the sums of other importance matrices to the one that is looked at",
        "Importance",
        (),
        "git-merge",
        "open importance",
    ),
    ActionSpec(
        "save_importance",
        "&Save importance matrix as…",
        "Write what is looked at to another file: GGUF, or llama.cpp's older format by a name in .dat",
        "Importance",
        (),
        "floppy-disk-back",
        "open importance",
    ),
    ActionSpec(
        "expand_all",
        "&Expand all",
        "Show the tensors of every block",
        "View",
        ("Ctrl+Shift+E",),
        "arrows-out-line-vertical",
        "model",
    ),
    ActionSpec(
        "collapse_all",
        "&Collapse all",
        "Show blocks only",
        "View",
        ("Ctrl+Shift+L",),
        "arrows-in-line-vertical",
        "model",
    ),
    ActionSpec(
        "toggle_inspector",
        "&Inspector",
        "Show or hide what is known of the selected tensor",
        "View",
        ("Ctrl+I",),
        "info",
        checkable=True,
        rule=True,
    ),
    ActionSpec("toggle_jobs", "&Jobs", "Show or hide the jobs", "View", ("Ctrl+J",), "queue", checkable=True),
    ActionSpec(
        "toggle_log",
        "&Log",
        "Show or hide the log of the current job",
        "View",
        ("Ctrl+L",),
        "terminal-window",
        checkable=True,
    ),
    ActionSpec("theme_system", "&Like the system", "Light or dark as the system is", "Theme", group="theme"),
    ActionSpec("theme_light", "L&ight", "Always light", "Theme", group="theme"),
    ActionSpec("theme_dark", "&Dark", "Always dark", "Theme", group="theme"),
    ActionSpec(
        "reset_layout",
        "&Reset layout",
        "Put every panel back to its first place and size",
        "View",
        (),
        "layout",
    ),
    ActionSpec(
        "run",
        "&Run…",
        "Write the GGUF file that the recipe describes; a sheet asks first",
        "Run",
        ("Ctrl+R",),
        "play",
        "plan",
    ),
    ActionSpec(
        "stop_job",
        "&Stop job",
        "Stop the selected job; what is finished is kept",
        "Run",
        ("Ctrl+.",),
        "stop",
        "active job",
    ),
    ActionSpec(
        "resume_job",
        "Resu&me job",
        "Go on with a job that was stopped or broke off",
        "Run",
        (),
        "arrow-clockwise",
        "resumable job",
    ),
    ActionSpec(
        "resume_job_less",
        "Resume &with less memory",
        "Go on under a limit of memory: slower, with the same result",
        "Run",
        (),
        "gauge",
        "memory job",
    ),
    ActionSpec(
        "restart_job",
        "Start job a&gain",
        "Begin the selected job anew; what is saved of it is given up",
        "Run",
        (),
        "arrow-counter-clockwise",
        "restartable job",
    ),
    ActionSpec(
        "open_output_folder",
        "&Open output folder",
        "Show the folder of the job's file in the file manager",
        "Run",
        (),
        "folder-simple",
        "job folder",
        rule=True,
    ),
    ActionSpec(
        "copy_command",
        "&Copy the job's command",
        "Copy the command line that does the same as the selected job",
        "Run",
        ("Ctrl+Shift+C",),
        "copy",
        "command",
    ),
    ActionSpec(
        "remove_job",
        "Remo&ve job",
        "Take the selected job off the list; the file that it has finished stays",
        "Run",
        ("Del",),
        "trash",
        "removable job",
        focused=True,
        rule=True,
    ),
    ActionSpec(
        "remove_finished_jobs",
        "Remove &finished jobs",
        "Take all jobs that are over off the list; their files stay",
        "Run",
        (),
        "trash-simple",
        "finished jobs",
    ),
    ActionSpec("help", "&Help", "How to use Bitwright", "Help", (Standard.HelpContents,), "question"),
    ActionSpec(
        "shortcuts_help", "&Keyboard shortcuts", "All keys on one page", "Help", ("Ctrl+F1",), "keyboard"
    ),
    ActionSpec(
        "command_palette",
        "&Find a command…",
        "Type some letters of any command and run it",
        "Help",
        ("Ctrl+Shift+P",),
        "command",
    ),
    ActionSpec(
        "about",
        "&About Bitwright",
        "Versions of Bitwright and what it stands on",
        "Help",
        (),
        "info",
        rule=True,
    ),
)
"""In the order of menus and palette."""
