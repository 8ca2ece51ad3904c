"""One self-contained HTML file about a run, a dataset or a whole loop."""

from qt_ros.report.build import build_report

__all__ = ['build_report']
