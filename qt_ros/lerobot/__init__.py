"""Sets that LeRobot or others recorded in its v3 format, read as episodes of a contract."""

from qt_ros.lerobot.errors import EpisodeError, SourceError
from qt_ros.lerobot.importing import ImportResult, import_lerobot
from qt_ros.lerobot.mapping import parse_names
from qt_ros.lerobot.source import Source
from qt_ros.lerobot.suggest import suggest_contract

__all__ = [
    'EpisodeError',
    'ImportResult',
    'Source',
    'SourceError',
    'import_lerobot',
    'parse_names',
    'suggest_contract',
]
