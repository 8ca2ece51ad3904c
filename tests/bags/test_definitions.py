"""Which definition a message is decoded by, and definitions that must not be trusted."""

from __future__ import annotations

import os
import struct
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qt_ros.bags.definitions import DefinitionError, installed_definition, parse_definition
from qt_ros.bags.records import TopicInfo
from qt_ros.bags.types import begins_with_header, deserialize, why_unreadable
from qt_ros.errors import BagError

HEAD = b'\x00\x01\x00\x00'
LINE = '=' * 80


def install(prefix: Path, package: str, name: str, text: str, suffix: str = '.msg') -> None:
    folder = prefix / 'share' / package / 'msg'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f'{name}{suffix}').write_text(text)


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{tmp_path / "nothing"}:{tmp_path}:')
    return tmp_path


def test_the_recording_comes_first_then_the_installed_ros_then_ours(prefix: Path) -> None:
    data = HEAD + struct.pack('<ii', 3, 4)
    install(prefix, 'order_msgs', 'Pair', 'int32 installed_x\nint32 installed_y\n')
    own = TopicInfo('order_msgs/msg/Pair', 1, definition='int32 own_x\nint32 own_y\n')
    assert deserialize(own, data).own_y == 4
    assert deserialize(TopicInfo('order_msgs/msg/Pair', 1), data).installed_y == 4
    with pytest.raises(BagError, match='unknown'):
        deserialize(TopicInfo('order_msgs/msg/Other', 1), data)
    unusable = TopicInfo('order_msgs/msg/Pair', 1, definition='what is this')
    assert deserialize(unusable, data).installed_x == 3
    # Built in: Int32 of std_msgs; an installed one of the same name comes before it.
    assert deserialize(TopicInfo('std_msgs/msg/Int32', 1), HEAD + struct.pack('<i', 5)).data == 5
    install(prefix, 'std_msgs', 'Char', 'uint8 renamed\n')
    assert deserialize(TopicInfo('std_msgs/msg/Char', 1), HEAD + b'\7').renamed == 7


def test_installed_types_nest_installed_types(prefix: Path) -> None:
    install(prefix, 'nest_msgs', 'Inner', 'int16 deep  # comment\nint16 MORE=3\n')
    install(prefix, 'nest_msgs', 'Outer', 'Inner[] inner\nbuiltin_interfaces/Time at\n')
    data = HEAD + struct.pack('<IhhiI', 2, 5, 6, 7, 8)
    message = deserialize(TopicInfo('nest_msgs/msg/Outer', 1), data)
    assert [each.deep for each in message.inner] == [5, 6]
    assert (message.at.sec, message.at.nanosec) == (7, 8)
    # The recording's own definition may leave out what an installed ROS knows.
    own = TopicInfo('nest_msgs/msg/Mine', 1, definition='nest_msgs/Inner one\n')
    assert deserialize(own, HEAD + struct.pack('<h', 9)).one.deep == 9


@pytest.mark.parametrize(
    'kind',
    ['sensor_msgs/msg/JointState', 'sensor_msgs/msg/Image', 'std_msgs/msg/MultiArrayLayout'],
)
def test_the_installed_idl_says_what_the_installed_msg_says(kind: str) -> None:
    package, _, name = kind.split('/')
    for folder in filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)):
        path = Path(folder) / 'share' / package / 'msg' / f'{name}.idl'
        if path.is_file() and path.with_suffix('.msg').is_file():
            text, form = installed_definition(kind) or ('', '')
            assert form == 'ros2msg'
            fields = parse_definition(text, kind, form)[kind][1]
            assert parse_definition(path.read_text(), kind, 'ros2idl')[kind][1] == fields
            return
    pytest.skip(f'no ROS with {package} is sourced')


def test_installed_idl(prefix: Path) -> None:
    text = 'module idl_msgs { module msg { struct Pair { long x; long y; }; }; };'
    install(prefix, 'idl_msgs', 'Pair', text, '.idl')
    message = deserialize(TopicInfo('idl_msgs/msg/Pair', 1), HEAD + struct.pack('<ii', 3, 4))
    assert (message.x, message.y) == (3, 4)


@pytest.mark.parametrize(
    'kind',
    [
        '../../../etc/msg/Passwd', 'a/../msg/B', '/etc/msg/Passwd', 'std_msgs/msg/../../x', 'a//B',
        'a/msg/B\0', 'A_msgs/msg/B', 'a/srv/B', '', 'a', 'std_msgs/msg/Int32.msg', '..',
        'a\n/msg/B',
    ],
)  # fmt: skip
def test_names_lead_to_no_other_files(prefix: Path, kind: str) -> None:
    assert installed_definition(kind) is None
    assert why_unreadable(TopicInfo(kind, 1))


def test_several_sections_with_windows_line_ends_and_constants() -> None:
    text = (
        '# comment\r\nHeader header\r\nint8 kA = 0\r\nint8 B=1 # one\r\nstring C=a # b = c\r\n'
        'float32[<=3] x [1.0, 2.0]\r\nstring<=5 s "a=b"\r\nPart[2] parts\r\n'
        f'{LINE}\r\nMSG: sections/Part\r\nuint8 n 5\r\n'
        f'{LINE}\r\nMSG: std_msgs/Header\r\nbuiltin_interfaces/Time stamp\r\nstring frame_id\r\n'
    )
    info = TopicInfo('sections/msg/Whole', 1, definition=text)
    assert why_unreadable(info) == ''
    assert begins_with_header(info)
    stamp = struct.pack('<iII', 3, 4, 1) + b'\0'
    data = (
        HEAD + stamp + bytes(3) + struct.pack('<If', 1, 0.5) + struct.pack('<I', 2) + b'a\0\7\x08'
    )
    message = deserialize(info, data)
    assert message.header.stamp.sec == 3
    assert message.x.tolist() == [0.5]
    assert (message.s, [part.n for part in message.parts]) == ('a', [7, 8])


def test_idl_with_sections_as_rosbag2_writes_it() -> None:
    text = (
        f'{LINE}\nIDL: two/msg/Outer\n#include "two/msg/Inner.idl"\n'
        'module two { module msg { struct Outer { two::msg::Inner inner; double y; }; }; };\n'
        f'{LINE}\nIDL: two/msg/Inner\n'
        'module two { module msg { struct Inner { long x; }; }; };\n'
    )
    info = TopicInfo('two/msg/Outer', 1, definition=text, definition_format='ros2idl')
    message = deserialize(info, HEAD + struct.pack('<i4xd', 3, 0.5))
    assert (message.inner.x, message.y) == (3, 0.5)


@pytest.mark.parametrize(
    'text',
    [
        'Loop again\n',
        f'B b\n{LINE}\nMSG: bad/B\nLoop c\n',
        'string[1000000000] names\n',
        f'B[999999] b\n{LINE}\nMSG: bad/B\nint8 x\n',
        f'B[] b\n{LINE}\nMSG: bad/B\n',  # repeats nothing, as often as a message says
        'int8 x' + ' ' * 2_000_000 + '\n',
        'int8 __import__("os")\n',
        'int8 x\nint8 x\n',
        'int8 for\nint8 for_\n',
        'missing/Type x\n',
        '---\nint8 x\n',
        '\n'.join(f'T{n + 1} x\n{LINE}\nMSG: bad/T{n + 1}' for n in range(200)) + '\nint8 x\n',
    ],
)
def test_definitions_that_would_harm_are_not_used(text: str) -> None:
    info = TopicInfo('bad/msg/Loop', 1, definition=text)
    begun = time.process_time()
    reason = why_unreadable(info)
    assert 'unusable definition' in reason, reason
    assert len(reason) < 600
    assert time.process_time() - begun < 5
    with pytest.raises(BagError):
        deserialize(info, HEAD + bytes(100))


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=200), kind=st.text(max_size=30))
def test_any_text_is_a_definition_or_a_definition_error(text: str, kind: str) -> None:
    with suppress(DefinitionError):
        assert kind in parse_definition(text, kind, 'ros2msg')
    assert isinstance(why_unreadable(TopicInfo(kind, 1, definition=text)), str)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_real_definition_with_letters_changed(data: st.DataObject) -> None:
    text = 'std_msgs/Header header\nstring[] name\nfloat64[] position\nint8[4] raw\nint8 OK=1\n'
    letters = list(text)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(letters) - 1))
        letters[at] = data.draw(st.characters(codec='utf-8'))
    info = TopicInfo('my_msgs/msg/Thing', 1, definition=''.join(letters))
    if not why_unreadable(info):
        with suppress(BagError):
            deserialize(info, HEAD + bytes(64))
