"""The words that the engine and the window share. Imports neither torch nor Qt, nor anything else of ours."""
