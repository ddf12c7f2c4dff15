"""Work that survives: job folders, journals of finished units, partial outputs, limits.

A job is a folder: `job.json` (what was asked, written once), `state.json` (where it stands),
`journal.jsonl` (finished units of work), `recipe.json` and `engine.log`.
"""
