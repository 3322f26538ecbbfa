"""Errors whose message tells a person where, what was got, what is allowed and what to do.

Every command prints the message of a `SpineError` alone, without a traceback, and exits with 2.
"""


class SpineError(Exception):
    """A problem that the user of a command can mend; the message says how."""


class ConfigError(SpineError, ValueError):
    """A knob, a config or a grid file is wrong."""


class SplitError(SpineError, ValueError):
    """A split file is wrong, or does not fit the data."""


class DataError(SpineError, ValueError):
    """An image, a mask or a data folder is wrong."""


class WeightsError(SpineError, ValueError):
    """A weights file is missing, altered, or of another architecture."""


class SiteError(SpineError):
    """A site profile is wrong, or the cluster refuses what was asked."""


class RunError(SpineError):
    """The folder of a run or of an experiment cannot be used as it is."""


class NotOwner(SpineError):
    """Another attempt computes this cell; this one must not touch its folder."""


class IncompleteGrid(SpineError):
    """A grid's cells are not all complete."""


class MixedResults(SpineError):
    """A grid's cells were computed with different code or data, so they do not compare."""


class Interrupted(Exception):
    """Training stopped on request, with a checkpoint on disk."""
