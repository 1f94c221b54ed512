"""Where `axis`, `product` and the others were: scripts that import them from here still work."""

from sweeps.question.grid import axis, chain, product, zipped

__all__ = ["axis", "chain", "product", "zipped"]
