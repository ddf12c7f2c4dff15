"""GGUF: what goes into the file, its header to the byte, and the check of what was written."""

from engine.export.gguf.header import header
from engine.export.gguf.plan import Export, plan_export
from engine.export.gguf.tensor import OutputTensor
from engine.export.gguf.verify import VerificationError, verify

__all__ = ["Export", "OutputTensor", "VerificationError", "header", "plan_export", "verify"]
