"""The exceptions of PaperTwin: one small tree, so that a caller can catch what it can handle.

A message says what went wrong, what was got, what was expected and how to fix it.
"""


class PaperTwinError(Exception):
    """Base of every error that PaperTwin raises on purpose."""


class LedgerError(PaperTwinError):
    """A paper's ledger is missing, malformed or contradicts itself."""


class ParameterError(PaperTwinError):
    """A notebook parameter is unknown or has the wrong type or value."""


class DataError(PaperTwinError):
    """A data set is missing, corrupted or not understood."""


class InputError(PaperTwinError, ValueError):
    """An argument of a library function cannot be used (shape, range, NaN, order)."""


class RunError(PaperTwinError):
    """A notebook could not be run, or its outputs could not be written."""


class DivergenceError(InputError):
    """A training whose loss is no longer a finite number."""
