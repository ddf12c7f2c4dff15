"""Text into windows of tokens, and windows into statistics of layers."""
