"""Where `Sweep` was: scripts that import it from here still work."""

from sweeps.question.sweep import Sweep

__all__ = ["Sweep"]
