"""Recordings in, episodes out: storage readers, segmentation, ticks, the converter, inspection.

Here is what reads a recording; `converter.convert`, `inspect.inspect_bag` and
`suggest.suggest_contract` are imported from their modules, because they load more.
"""

from qt_ros.bags.reader import BagReader
from qt_ros.bags.records import Record, TopicInfo
from qt_ros.bags.types import MessageTypes, deserialize

__all__ = ['BagReader', 'MessageTypes', 'Record', 'TopicInfo', 'deserialize']
