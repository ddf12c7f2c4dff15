"""GGUF: what goes into the file, its header to the byte, and the check of what was written."""

from engine.export.gguf.header import Part, make_parts
from engine.export.gguf.plan import WRITTEN_ANEW, Export, export_tensors, plan_export
from engine.export.gguf.tensor import OutputTensor
from engine.export.gguf.verify import VerificationError, verify

__all__ = [
    "WRITTEN_ANEW",
    "Export",
    "OutputTensor",
    "Part",
    "VerificationError",
    "export_tensors",
    "make_parts",
    "plan_export",
    "verify",
]
