"""The table of every action of the window: its words, keys, icon, place in the menus, what it needs."""

from app.action_specs import ActionSpec, MenuSpec, Standard

FILE = (
    ActionSpec("open_folder", "&Open folder…", "Open a Hugging Face folder", (Standard.Open,), "folder-open"),
    ActionSpec(
        "open_file", "Open &file…", "Open a .gguf, .safetensors or .bin file", ("Ctrl+Shift+O",), "file"
    ),
    ActionSpec(
        "open_sample", "Open the sa&mple model", "Open the small model that ships with Bitwright", (), "flask"
    ),
    ActionSpec(
        "close_model",
        "C&lose model",
        "Close the model and go back to the start page",
        ("Ctrl+W",),
        "x",
        "model",
    ),
    ActionSpec("quit", "&Quit", "End Bitwright", ("Ctrl+Q",), "sign-out", rule=True),
)

EDIT = (
    ActionSpec(
        "undo",
        "&Undo",
        "Take back the last change of the recipe",
        (Standard.Undo,),
        "arrow-u-up-left",
        "undo",
    ),
    ActionSpec(
        "redo",
        "&Redo",
        "Make the change again that was taken back",
        (Standard.Redo,),
        "arrow-u-up-right",
        "redo",
    ),
    ActionSpec(
        "select_all",
        "Select &all",
        "Select every tensor that the filter shows",
        (Standard.SelectAll,),
        "selection-all",
        "model",
        rule=True,
    ),
    ActionSpec(
        "filter",
        "&Filter",
        "Go to the field that filters the table",
        (Standard.Find,),
        "magnifying-glass",
        "model",
    ),
    ActionSpec(
        "choose_format",
        "C&hoose format…",
        "List the formats that the selected tensors can have",
        ("Q",),
        "list-bullets",
        "selection",
        focused=True,
    ),
    ActionSpec(
        "pin",
        "&Pin",
        "Keep the selected tensors as they are when a preset is chosen; again to let go",
        ("P",),
        "push-pin",
        "selection",
        focused=True,
    ),
    ActionSpec(
        "apply_to_role",
        "App&ly to all of its role",
        "Give all tensors of the same role the format and method of the current one",
        ("Ctrl+Return",),
        "stack",
        "selection",
        focused=True,
    ),
)

RECIPE = (
    ActionSpec(
        "preset",
        "&Preset…",
        "Begin the recipe from a preset; pinned tensors stay as they are",
        ("Ctrl+P",),
        "sliders-horizontal",
        "plan",
    ),
    ActionSpec(
        "metadata",
        "&Metadata…",
        "View and edit what the file will say of itself: name, author, license, chat template",
        ("Ctrl+M",),
        "identification-card",
        "plan",
    ),
    ActionSpec(
        "open_recipe",
        "&Open recipe…",
        "Take the recipe of a file",
        ("Ctrl+Alt+O",),
        "file-text",
        "plan",
        rule=True,
    ),
    ActionSpec(
        "save_recipe", "&Save recipe", "Write the recipe to its file", (Standard.Save,), "floppy-disk", "plan"
    ),
    ActionSpec(
        "save_recipe_as",
        "Save recipe &as…",
        "Write the recipe to another file",
        (Standard.SaveAs,),
        "floppy-disk-back",
        "plan",
    ),
)

IMPORTANCE = (
    ActionSpec(
        "calibrate",
        "&Compute importance matrix…",
        "Gather how much each input column of the model matters on a text; a sheet asks first",
        ("Ctrl+Shift+M",),
        "calculator",
        "plan",
    ),
    ActionSpec(
        "importance",
        "&Load importance matrix…",
        "Weigh errors by an importance matrix (GGUF or .dat)",
        (),
        "scales",
        "plan",
    ),
    ActionSpec(
        "use_importance",
        "&Use it for the recipe",
        "Weigh errors by the importance matrix that is looked at",
        (),
        "check",
        "usable importance",
    ),
    ActionSpec(
        "no_importance",
        "&No importance matrix",
        "Take the importance matrix out of the recipe",
        needs="importance",
    ),
    ActionSpec(
        "look_importance",
        "Look at a &file…",
        "Show the statistics of an importance matrix; the recipe stays as it is",
        (),
        "file",
        rule=True,
    ),
    ActionSpec(
        "view_importance",
        "&View importance matrix",
        "Show the statistics of the importance matrix",
        ("Ctrl+Alt+I",),
        "chart-bar",
        "open importance",
    ),
    ActionSpec(
        "merge_importance",
        "&Merge others into it…",
        "Add the sums of other importance matrices to the one that is looked at",
        (),
        "git-merge",
        "open importance",
    ),
    ActionSpec(
        "save_importance",
        "&Save importance matrix as…",
        "Write what is looked at to another file: GGUF, or llama.cpp's older format by a name in .dat",
        (),
        "floppy-disk-back",
        "open importance",
    ),
)

TABS = (
    ("layers", "La&yers", "Go to the table of tensors"),
    ("histograms", "&Histograms", "Go to how weights and activations are distributed"),
    ("outliers", "O&utliers", "Go to the channels that stand out, layer by layer"),
    ("weights", "&Weights", "Go to the selected tensor as a picture"),
    ("error", "Err&or", "Go to what the recipe loses of the selected tensor"),
)

VIEW = (
    *(
        ActionSpec(f"show_{name}", text, tip, (f"Ctrl+{place}",), needs="model")
        for place, (name, text, tip) in enumerate(TABS, 1)
    ),
    ActionSpec(
        "expand_all",
        "&Expand all",
        "Show the tensors of every block",
        ("Ctrl+Shift+E",),
        "arrows-out-line-vertical",
        "model",
        rule=True,
    ),
    ActionSpec(
        "collapse_all",
        "&Collapse all",
        "Show blocks only",
        ("Ctrl+Shift+L",),
        "arrows-in-line-vertical",
        "model",
    ),
    ActionSpec(
        "toggle_inspector",
        "&Inspector",
        "Show or hide what is known of the selected tensor",
        ("Ctrl+I",),
        "info",
        checkable=True,
        rule=True,
    ),
    ActionSpec("toggle_jobs", "&Jobs", "Show or hide the jobs", ("Ctrl+J",), "queue", checkable=True),
    ActionSpec(
        "toggle_log",
        "&Log",
        "Show or hide the log of the current job",
        ("Ctrl+L",),
        "terminal-window",
        checkable=True,
    ),
    ActionSpec(
        "reset_layout", "&Reset layout", "Put every panel back to its first place and size", (), "layout"
    ),
)

THEME = (
    ActionSpec("theme_system", "&Like the system", "Light or dark as the system is", group="theme"),
    ActionSpec("theme_light", "L&ight", "Always light", group="theme"),
    ActionSpec("theme_dark", "&Dark", "Always dark", group="theme"),
)

RUN = (
    ActionSpec(
        "run",
        "&Run…",
        "Write the GGUF file that the recipe describes; a sheet asks first",
        ("Ctrl+R",),
        "play",
        "plan",
    ),
    ActionSpec(
        "stop_job",
        "&Stop job",
        "Stop the selected job; what is finished is kept",
        ("Ctrl+.",),
        "stop",
        "active job",
    ),
    ActionSpec(
        "resume_job",
        "Resu&me job",
        "Go on with a job that was stopped or broke off",
        (),
        "arrow-clockwise",
        "resumable job",
    ),
    ActionSpec(
        "resume_job_less",
        "Resume &with less memory",
        "Go on under a limit of memory: slower, with the same result",
        (),
        "gauge",
        "memory job",
    ),
    ActionSpec(
        "restart_job",
        "Start job a&gain",
        "Begin the selected job anew; what is saved of it is given up",
        (),
        "arrow-counter-clockwise",
        "restartable job",
    ),
    ActionSpec(
        "open_output_folder",
        "&Open output folder",
        "Show the folder of the job's file in the file manager",
        (),
        "folder-simple",
        "job folder",
        rule=True,
    ),
    ActionSpec(
        "copy_command",
        "&Copy the job's command",
        "Copy the command line that does the same as the selected job",
        ("Ctrl+Shift+C",),
        "copy",
        "command",
    ),
    ActionSpec(
        "remove_job",
        "Remo&ve job",
        "Take the selected job off the list; the file that it has finished stays",
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
        (),
        "trash-simple",
        "finished jobs",
    ),
)

HELP = (
    ActionSpec("help", "&Help", "How to use Bitwright", (Standard.HelpContents,), "question"),
    ActionSpec("shortcuts_help", "&Keyboard shortcuts", "All keys on one page", ("Ctrl+F1",), "keyboard"),
    ActionSpec(
        "command_palette",
        "&Find a command…",
        "Type some letters of any command and run it",
        ("Ctrl+Shift+P",),
        "command",
    ),
    ActionSpec(
        "about", "&About Bitwright", "Versions of Bitwright and what it stands on", (), "info", rule=True
    ),
)

BITS = tuple(
    ActionSpec(
        f"bits_{bits}",
        f"&{bits} bits",
        f"Store the selected tensors with {bits} bits a weight",
        (str(bits),),
        needs="selection",
        focused=True,
    )
    for bits in range(2, 9)
)

MENUS = {
    "File": MenuSpec("&File", FILE),
    "Recent": MenuSpec("Open re&cent", inside="File", before="close_model"),
    "Edit": MenuSpec("&Edit", EDIT),
    "Bits": MenuSpec(
        "&Bits", BITS, "Edit", "choose_format", "selection", "Store the selected tensors with so many bits"
    ),
    "Recipe": MenuSpec("&Recipe", RECIPE),
    "Importance": MenuSpec("&Importance matrix", IMPORTANCE, "Recipe", "open_recipe"),
    "View": MenuSpec("&View", VIEW),
    "Theme": MenuSpec("&Theme", THEME, "View", "reset_layout"),
    "Run": MenuSpec("R&un", RUN),
    "Help": MenuSpec("&Help", HELP),
}
"""Name → menu; those that lie in none make the menu bar. "Recent" is filled by the window."""

ACTIONS = tuple(spec for menu in MENUS.values() for spec in menu.actions)
"""In the order of menus and palette."""
