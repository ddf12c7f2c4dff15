"""QUndoCommands on the recipe."""
