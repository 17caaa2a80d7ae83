"""Schemes side by side on a fleet."""

from fedgc.comparison.compare import Comparison, compare, select_schemes
from fedgc.comparison.figure import draw_comparison
from fedgc.comparison.table import comparison_table

__all__ = ["Comparison", "compare", "comparison_table", "draw_comparison", "select_schemes"]
