"""The error tree; every message says what, how many and which first, what must hold, what to do.

PipelineError
├── InputError            the caller's data or options are at fault (exit code 2)
│   ├── SourceError       a source cannot be found, read or recognised
│   ├── SampleError       the data leaves nothing to learn from
│   └── ExperimentError   an experiment, an audience or a forecast is asked for what the data cannot tell
├── ModelError            a language model is missing or of a kind that we cannot cut
├── DeviceError           the device that was asked for is not there, or its memory is too small
├── ClusterError          other machines were asked for that do not answer, or cannot do the work
├── WarehouseError        the warehouse cannot be opened or does not hold what was asked for
├── PublicationError      a published model is missing, damaged, or not fit to serve
├── JournalError          what users did cannot be kept or read back
└── HomeError             another process works in the home, or what it keeps is damaged
"""


class PipelineError(Exception):
    """Whatever this project raises on purpose."""


class InputError(PipelineError):
    """What the caller brought breaks a rule; the command line exits with 2."""


class SourceError(InputError):
    """A source cannot be found, read or recognised."""


class SampleError(InputError):
    """The data leaves nothing to learn from."""


class ExperimentError(InputError):
    """An experiment, an audience or a forecast is asked for what the data, or its own settings, cannot tell."""


class ModelError(PipelineError):
    """A language model is missing, or of a kind whose layers we cannot cut."""


class DeviceError(PipelineError):
    """The device that was asked for is not there, or has too little memory for the smallest part of the work."""


class ClusterError(PipelineError):
    """The machines that were asked for do not answer, have other code, or lose the work time and again."""


class WarehouseError(PipelineError):
    """The warehouse is held by another process, or lacks a relation."""


class PublicationError(PipelineError):
    """A published model is missing, damaged, or fails the test that it must pass before it serves."""


class JournalError(PipelineError):
    """What users did cannot be kept for certain, or not be read back."""


class HomeError(PipelineError):
    """Another process works in the home, or a file that it keeps is damaged."""
