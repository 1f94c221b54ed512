"""Why a run cannot start, or cannot go on."""


class PlacementError(Exception):
    """The trials cannot run on the machines there are."""


class StorageError(Exception):
    """What a run stands on is gone: its storage cannot be written to, or its Ray ended. No trial's fault."""
