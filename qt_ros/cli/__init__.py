"""The `qt-ros` command: one file for each command, all of them thin."""

from qt_ros.cli.main import main

__all__ = ['main']
