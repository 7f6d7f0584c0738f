"""The one exception family of the package."""


class ExpVQAError(Exception):
    """A fault that the user can mend: the message says where, what was found, what was expected."""


class ImageError(ExpVQAError):
    """An image is missing, unreadable or unusable."""


class TableError(ExpVQAError):
    """A face table, pair file or result table does not hold what it must."""


class SettingsError(ExpVQAError):
    """A profile, parameter or option is unknown or out of range."""


class ModelError(ExpVQAError):
    """A model folder or checkpoint is missing, incomplete or does not fit."""


class TrainingError(ExpVQAError):
    """Training cannot go on: the loss is not a number."""


class ServerError(ExpVQAError):
    """A language model's server cannot be reached or refuses, or the budget for it is spent."""
