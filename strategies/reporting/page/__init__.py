"""A run's status as a page: one HTML file that needs nothing else, for a browser at a desk or in a hand."""

from fedgc.strategies.reporting.page.document import GENERATOR, status_html

__all__ = ["GENERATOR", "status_html"]
