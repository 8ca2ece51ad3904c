"""Read the header's stamp from serialised bytes, without decoding the message.

A message whose first field is a std_msgs/Header begins so:

    CDR    00 0E .. ..  | sec int32 | nanosec uint32 | frame_id ...     (E = 1: little endian)
    ROS 1  seq uint32   | secs uint32 | nsecs uint32 | frame_id ...
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from qt_ros.bags.records import CDR, ROS1

_LITTLE = struct.Struct('<iI')
_BIG = struct.Struct('>iI')
_ROS1 = struct.Struct('<II')


def peek_cdr(data: bytes) -> int | None:
    """Return the stamp [ns], None if the bytes are too short or no CDR."""
    if len(data) < 12 or data[0]:
        return None
    if data[1] == 1:
        seconds, nanoseconds = _LITTLE.unpack_from(data, 4)
    elif data[1] == 0:
        seconds, nanoseconds = _BIG.unpack_from(data, 4)
    else:
        return None
    return seconds * 1_000_000_000 + nanoseconds


def peek_ros1(data: bytes) -> int | None:
    """Return the stamp [ns], None if the bytes are too short."""
    if len(data) < 12:
        return None
    seconds, nanoseconds = _ROS1.unpack_from(data, 4)
    return seconds * 1_000_000_000 + nanoseconds


def peeker(encoding: str) -> Callable[[bytes], int | None]:
    """Return the function for an encoding; one that finds nothing for an unknown encoding."""
    return {CDR: peek_cdr, ROS1: peek_ros1}.get(encoding, lambda data: None)
