"""Errors that the user can mend. The command line prints one as a single sentence and exits with code 2."""


class UserError(Exception):
    """Something the user gave is wrong. The text reads `where: given; allowed; what to do`."""


def note_kept(error: BaseException) -> None:
    """Note on an interruption that what is finished is kept; the command line says so with the error."""
    error.add_note("finished steps are kept, add --resume to continue")


class ConfigError(UserError):
    """A run file, a `--set` or an argument is wrong."""


class DataError(UserError):
    """A data file or a row is wrong."""


class ModelError(UserError):
    """A model, tokenizer or adapter cannot be used as asked."""


class ResultError(UserError):
    """A run folder or a result cannot be read, or would be overwritten."""
