"""One file a family: every `Architecture` that a module of this package defines is known to the project."""
