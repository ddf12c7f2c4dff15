"""Text into windows of tokens, windows into importance matrices, and their files."""
