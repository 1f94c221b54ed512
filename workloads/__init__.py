"""Everything that defines one trial: configuration, data, model and training. Independent of Ray.

What a script of one's own imports is here:

    from workloads import Workload
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workloads.own import Workload
    from workloads.rows import Range

__all__ = ["Range", "Workload"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: analysis reads a few modules of this package, without torch.
    if name == "Workload":
        from workloads.own import Workload

        return Workload
    if name == "Range":
        from workloads.rows import Range

        return Range
    raise AttributeError(f"module 'workloads' has no attribute {name!r}")
