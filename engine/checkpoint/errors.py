"""One error for each way in which a source can be wrong. All are `CheckpointError`s: one sentence each."""

from engine.api.errors import CheckpointError


class MissingPathError(CheckpointError):
    """Nothing lies under the path."""


class EmptyFolderError(CheckpointError):
    """A folder without any file."""


class NoWeightsError(CheckpointError):
    """A folder with files, none of them weights that are known."""


class AmbiguousFolderError(CheckpointError):
    """A folder with several models."""


class UnreadableError(CheckpointError):
    """The system refuses to open or read the file, or it is no plain file."""


class NotAModelError(CheckpointError):
    """A file that holds no model weights, or in a layout that is not supported."""


class LfsPointerError(NotAModelError):
    """The small text that git-lfs leaves where the weights were not downloaded."""


class ByteOrderError(NotAModelError):
    """A file written for big-endian machines."""


class UnsafePickleError(CheckpointError):
    """A pickle that asks for more than tensors; none of it was executed."""


class ConfigError(CheckpointError):
    """A config.json, an index or another file beside the weights that is not the JSON it should be."""


class ShardNameError(CheckpointError):
    """An index that points outside of its folder."""


class MissingShardError(CheckpointError):
    """A part of the model that is not there."""


class IndexMismatchError(CheckpointError):
    """An index, or a count of parts, that contradicts the shards."""


class DuplicateTensorError(CheckpointError):
    """Two tensors of one name."""


class TruncatedError(CheckpointError):
    """A file that ends before what its header promises."""


class OversizedHeaderError(CheckpointError):
    """A header that claims sizes no file could have."""


class BadHeaderError(CheckpointError):
    """A header that breaks the rules of its format."""


class TensorOffsetsError(BadHeaderError):
    """Tensors that overlap, leave holes, or whose bytes do not fit their shape."""


class MissingTensorError(CheckpointError):
    """A tensor that the architecture needs is not there."""


class TensorShapeError(CheckpointError):
    """A tensor whose shape is not what the config or the metadata say."""


class UnknownTensorError(CheckpointError):
    """A tensor that the architecture has no place for; it is never dropped in silence."""


class UnknownTypeError(CheckpointError):
    """A storage type that is not known, or that cannot be decoded."""


class PackedTensorError(CheckpointError):
    """Weights packed by another quantizer."""


class NonFiniteError(CheckpointError):
    """A weight that is NaN or infinite."""
