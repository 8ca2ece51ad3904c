"""Names of the set and names of the contract: found, asked for, never taken by position."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_sets import MadeSet, contract

from qt_ros.contract import Contract
from qt_ros.dataset import Dataset
from qt_ros.lerobot import Source, SourceError, import_lerobot, parse_names
from qt_ros.lerobot.mapping import match
from qt_ros.lerobot.names import plain


@pytest.mark.parametrize(
    'names',
    [
        ['shoulder_pan.pos', 'elbow.pos', 'gripper.pos'],
        ['position.shoulder_pan', 'position.elbow', 'position.gripper'],
        ['shoulder_pan', 'elbow', 'gripper'],
        {'motors': ['main_shoulder_pan', 'main_elbow', 'main_gripper']},
        {'arm': ['shoulder_pan', 'elbow'], 'hand': ['gripper']},
        {'gripper': 2, 'shoulder_pan': 0, 'elbow': 1},
        [['shoulder_pan', 'elbow'], ['gripper']],
    ],
)
def test_names_are_found_however_they_are_written(tmp_path: Path, names: object) -> None:
    source = Source(MadeSet(names=names).write(tmp_path / 'theirs'))
    found = match(contract(), source.info, {})
    assert [column.index for column in found.state] == [0, 1, 2]
    assert [column.index for column in found.action if column] == [0, 1, 2]
    assert found.cameras == {'top': 'observation.images.top'}


def test_order_does_not_matter(tmp_path: Path) -> None:
    made = MadeSet(names=['gripper.pos', 'shoulder_pan.pos', 'elbow.pos'])
    import_lerobot(made.write(tmp_path / 'theirs'), tmp_path / 'ours', contract())
    rows = Dataset(tmp_path / 'ours').rows(0)
    assert (rows['observation.state'] == made.state(0)[:, [1, 2, 0]]).all()
    assert (rows['action'][:, 2] == made.action(0)[:, 0]).all()


def test_everything_missing_is_said_at_once_with_what_is_there(tmp_path: Path) -> None:
    made = MadeSet(names=['a', 'b', 'c'], cameras={'laptop': (64, 96)})
    with pytest.raises(SourceError) as caught:
        import_lerobot(made.write(tmp_path / 'theirs'), tmp_path / 'ours', contract())
    text = str(caught.value)
    for word in ('camera top', 'state joints.position.elbow', 'action elbow', 'action grip'):
        assert word in text
    assert '--map' in text
    assert 'observation.images.laptop' in text
    assert 'observation.state holds a, b, c' in text
    assert not (tmp_path / 'ours').exists()


def test_unnamed_columns_are_never_taken_by_position(tmp_path: Path) -> None:
    source = MadeSet(names=None).write(tmp_path / 'theirs')
    with pytest.raises(SourceError, match='the set names nothing'):
        import_lerobot(source, tmp_path / 'ours', contract())
    names = parse_names(
        [
            *(
                'state:position.shoulder_pan=state_2',
                'joints.position.elbow=observation.state.state_1',
            ),
            *('position.gripper=state_0', 'shoulder_pan=action_2', 'elbow=action_1'),
            'grip=action.action_0',
        ]
    )
    found = match(contract(), Source(source).info, names)
    assert [column.index for column in found.state] == [2, 1, 0]
    assert [column.index for column in found.action if column] == [2, 1, 0]


def test_what_the_user_says_about_names_is_checked(tmp_path: Path) -> None:
    source = MadeSet().write(tmp_path / 'theirs')
    for given, words in (
        ({'front': 'top'}, 'the contract has no such thing'),
        ({'top': 'laptop'}, r'camera top \(given as laptop\)'),
        ({'grip': 'claw'}, r'action grip \(given as claw\)'),
        ({'position.elbow': 'action'}, r'state joints.position.elbow \(given as action\)'),
    ):
        with pytest.raises(SourceError, match=words):
            match(contract(), Source(source).info, given)
    with pytest.raises(SourceError, match='OURS=THEIRS'):
        parse_names(['front', '=x', 'a=b', 'a=c'])


def test_a_name_of_two_things_has_to_say_which(tmp_path: Path) -> None:
    source = MadeSet().write(tmp_path / 'theirs')
    text = contract().to_yaml().replace('grip\n', 'top\n')
    named_twice = Contract.parse(text)
    with pytest.raises(SourceError, match='write action:top or camera:top'):
        match(named_twice, Source(source).info, {'top': 'top'})
    found = match(
        named_twice, Source(source).info, {'camera:top': 'top', 'action:top': 'elbow.pos'}
    )
    assert [column.name for column in found.action if column][2] == 'elbow.pos'


def test_one_number_is_not_two_of_ours_by_itself(tmp_path: Path) -> None:
    source = MadeSet().write(tmp_path / 'theirs')
    more = """state:
- name: reference
  topic: /reference
  type: sensor_msgs/msg/JointState
  fields: [position.elbow]
"""
    twice = Contract.parse(contract().to_yaml().replace('state:\n', more))
    with pytest.raises(SourceError, match='say which is which'):
        match(twice, Source(source).info, {})
    found = match(twice, Source(source).info, {'reference.position.elbow': 'action.elbow.pos'})
    assert (found.state[0].feature, found.state[0].name) == ('action', 'elbow.pos')


def test_a_depth_range_needs_a_depth_camera(tmp_path: Path) -> None:
    source = MadeSet().write(tmp_path / 'theirs')
    with pytest.raises(SourceError, match='holds colours'):
        match(contract(crop=', depth_m: [0.2, 2.2]'), Source(source).info, {})


def test_plain_names_keep_kinds_apart() -> None:
    assert plain('elbow.pos') == plain('position.elbow') == plain('Elbow') == plain('main_elbow')
    assert plain('elbow.vel') == plain('velocity.elbow') != plain('elbow.pos')
    assert plain('left_arm.elbow.pos') == ('position', 'left_arm.elbow')
