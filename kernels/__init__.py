"""Numeric kernels behind plain functions on arrays. They know nothing of models, files or methods."""
