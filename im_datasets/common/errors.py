"""The exception tree: every error this package raises on purpose.

One base class, so that a caller (the command line, say) can catch all of them at once. A message says what
came, what is accepted, and what to do about it.
"""


class ImDatasetsError(Exception):
    """Base of every error raised on purpose by im-datasets."""


class UntrustedError(ImDatasetsError, ValueError):
    """What somebody else wrote is too large, too deep or not what it should be."""


class SourceError(ImDatasetsError):
    """A dataset could not be found, read or understood."""


class ColumnsError(ImDatasetsError):
    """Instruction and response could not be told from a dataset's columns."""


class IndicatorError(ImDatasetsError):
    """An indicator was given settings or rows it cannot work with."""


class NotFittedError(IndicatorError):
    """A whole-dataset indicator was called before it saw the dataset."""


class ModelError(ImDatasetsError):
    """A model or tokenizer is missing, of the wrong kind, or not what it claims to be."""


class EngineError(ImDatasetsError):
    """Rows cannot be scored where it was asked: no cluster, one that differs, or workers that are lost."""


class RuleError(ImDatasetsError):
    """A rule is unknown, malformed, or asks for columns that are not there."""


class CalibrationError(ImDatasetsError):
    """Finetuning runs cannot be read, made or fitted as asked."""


class ModuleNameError(ImDatasetsError):
    """An `evaluate` module is not one of those that ship."""


class SelectionError(ImDatasetsError):
    """A selection was asked for in terms that cannot be met."""


class OutputError(ImDatasetsError):
    """An output folder cannot be written without losing something."""


class HubError(ImDatasetsError):
    """A repository on the Hub could not be read or written."""


class ConflictError(HubError):
    """Somebody else changed what a push would have written."""


class MissingExtraError(ImDatasetsError):
    """An optional dependency is not installed; the message gives its pip line."""


def message_of(error: BaseException, limit: int = 2000) -> str:
    """What an error says, in one line; the name of its class where it says nothing.

    Example:
        >>> message_of(ValueError("no   number")), message_of(KeyError())
        ('no number', 'KeyError')
    """
    return " ".join(str(error).split())[:limit] or type(error).__name__
