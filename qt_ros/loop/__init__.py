"""The loop: record, convert, train, drive, and again on everything that was gathered."""

from qt_ros.loop.attempts import Attempt, success_rate
from qt_ros.loop.driving import drive
from qt_ros.loop.recording import record
from qt_ros.loop.rounds import Loop, Round, Settings

__all__ = ['Attempt', 'Loop', 'Round', 'Settings', 'drive', 'record', 'success_rate']
