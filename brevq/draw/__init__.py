"""Recipes as pictures: how one is wired, and which numbers it can give, as SVG."""

from brevq.draw.pictures import grid, svg, wiring

__all__ = ["grid", "svg", "wiring"]
