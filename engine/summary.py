"""The output of a model before its formats are chosen, in the words that the window shares."""

from engine.api.gguf import GgufValue
from engine.api.metadata import entries_of
from engine.api.plan import ExportSummary, ExportTensor
from engine.checkpoint import Checkpoint
from engine.export.gguf import WRITTEN_ANEW, make_parts, plan_export
from engine.recipes import model_facts


def export_summary(checkpoint: Checkpoint) -> ExportSummary:
    """What a GGUF of this model would hold. Raises what `plan_export` raises where there can be none."""
    export = plan_export(checkpoint)
    (part,) = make_parts(export, {tensor.name: "F32" for tensor in export.tensors}, file_type=0)
    return ExportSummary(
        facts=model_facts(checkpoint, export.tensors),
        header_bytes=len(part.header),
        metadata=entries_of(export.metadata | WRITTEN_ANEW),
        pre_tokenizers=_pre_tokenizers(export.metadata),
        alignment=export.alignment,
        notes=export.notes,
        tensors=[
            ExportTensor(
                name=tensor.name,
                shape=tensor.shape,
                role=tensor.role,
                block=tensor.block,
                sources=tensor.sources,
                stored=tensor.stored,
                copyable=tensor.copyable,
                fixed=tensor.fixed,
            )
            for tensor in export.tensors
        ],
    )


def _pre_tokenizers(metadata: dict[str, GgufValue]) -> list[str]:
    """The names to choose from, where there is a choice."""
    from engine.tokenizer.pretokenizers import BY_NAME

    model = metadata.get("tokenizer.ggml.model")
    return sorted(BY_NAME) if model is not None and model.value == "gpt2" else []
