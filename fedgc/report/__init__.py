"""Reports on experiments: tables and figures of one or more folders of results, and a page that shows them."""

from fedgc.report.read import Results, read_results
from fedgc.report.write import write_report

__all__ = ["Results", "read_results", "write_report"]
