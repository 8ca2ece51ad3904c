"""Observations that the policy saw equal, bit for bit, those the converter builds afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import policy_rig
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('q_transformer_ros', reason='the interfaces are not built')

pytestmark = pytest.mark.ros


SPOILT = ('--jitter-s', '0.06', '--drops', '0.15', '--late', '0.3', '--seed', '7')
NEAR = {topic: f'/near{topic}' for topic in ('/eye/compressed', '/joint_states')}


@pytest.mark.parametrize('way', ['same', 'apart'])
def test_recorded_observations_equal_live_ones_bit_for_bit(
    ros_domain: int, tmp_path: Path, way: str
):
    """Jitter, lost messages, and messages that come out of order and after their tick.

    apart: node and recorder hear the robot by ways of their own, so that the node misses, or gets
    later, what the recorder has in time.
    """
    from qt_ros.nodes.policy import PolicyNode

    seen: dict[int, object] = {}

    class Watched(PolicyNode):
        def report(self, record) -> None:
            super().report(record)
            if record.decided is not None:
                seen[record.tick.step] = record.decided.observation

    run = policy_rig.make_checkpoint(tmp_path / 'run')
    apart = ('--apart',) if way == 'apart' else ()
    with (
        policy_rig.running(policy_rig.robot(*SPOILT, *apart), policy_rig.recorder(tmp_path)) as (
            client,
            *_,
        ),
        policy_rig.in_process(Watched, run, NEAR if apart else None),
    ):
        result, bag = client.record(instruction='do it', max_duration_s=5.0)
    assert result.termination == 'time_limit', result.message
    built, images = policy_rig.converted(bag)
    rows = {number: row for row, number in enumerate(built.ticks.numbers.tolist())}
    assert len(seen) >= 25
    heard, disorder = policy_rig.heard_by_the_recorder(bag)
    for step, observation in seen.items():
        row = rows[step]
        if not all(stamp in heard[name] for name, stamp in observation.stamps_ns.items()):
            # What was under way to the recorder when its bag was closed is in nobody's recording.
            assert way == 'apart'
            assert step > max(seen) - 4
            continue
        assert built.ticks.t_ns[row] == observation.t_ns
        assert row in built.ticks.steps
        for camera, image in observation.images.items():
            np.testing.assert_array_equal(images[camera][row], image)
        assert built.episode.state[row].tobytes() == observation.state.tobytes()
        for stream, stamp_ns in observation.stamps_ns.items():
            assert built.episode.stamps_ns[stream][row] == stamp_ns
            assert built.episode.valid[stream][row] == observation.valid[stream]
    assert len({image.tobytes() for image in images['eye']}) > 10
    # All that would prove nothing, had the robot behaved.
    for stream, stamps in heard.items():
        assert disorder[stream]['backwards'] > 0, f'{stream}: nothing came out of order'
        newest = stamps[np.searchsorted(stamps, built.ticks.t_ns, side='right') - 1]
        late = np.count_nonzero(newest > built.ticks.stamps_ns[stream])
        assert late > 0, f'{stream}: at no tick was anything late or lost for the node'
