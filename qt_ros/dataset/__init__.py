"""Datasets in LeRobot v3 format with outcomes, true stamps and crash-safe appending."""

from qt_ros.dataset.cache import build_cache
from qt_ros.dataset.catalog import EpisodeMeta
from qt_ros.dataset.labels import Label, read_labels
from qt_ros.dataset.reader import Dataset
from qt_ros.dataset.relabel import relabel
from qt_ros.dataset.video import EncodedVideo, encode_videos
from qt_ros.dataset.writer import DatasetWriter

__all__ = [
    'Dataset',
    'DatasetWriter',
    'EncodedVideo',
    'EpisodeMeta',
    'Label',
    'build_cache',
    'encode_videos',
    'read_labels',
    'relabel',
]
