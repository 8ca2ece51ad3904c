"""Observations that the policy saw equal, bit for bit, those the converter builds afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import policy_rig
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('q_transformer_ros', reason='the interfaces are not built')

pytestmark = pytest.mark.ros


def test_recorded_observations_equal_live_ones_bit_for_bit(ros_domain: int, tmp_path: Path):
    """Camera jitter, dropped images, and images that come after the tick that they belong to."""
    from qt_ros.nodes.policy import PolicyNode

    seen: dict[int, object] = {}

    class Watched(PolicyNode):
        def report(self, record) -> None:
            super().report(record)
            if record.decided is not None:
                seen[record.tick.step] = record.decided.observation

    run = policy_rig.make_checkpoint(tmp_path / 'run')
    spoilt = ('--jitter-s', '0.06', '--drops', '0.15', '--late', '0.3', '--seed', '7')
    with (
        policy_rig.robot(*spoilt) as robot,
        policy_rig.recorder(tmp_path) as recorder,
        policy_rig.Client() as client,
    ):
        robot.event('ready')
        recorder.event('ready')
        with policy_rig.in_process(Watched, run):
            result, bag = client.record(instruction='do it', max_duration_s=5.0)
    assert result.termination == 'time_limit', result.message
    built, images = policy_rig.converted(bag)
    rows = {number: row for row, number in enumerate(built.ticks.numbers.tolist())}
    assert len(seen) >= 25
    late_images = 0
    for step, observation in seen.items():
        row = rows[step]
        assert built.ticks.t_ns[row] == observation.t_ns
        assert row in built.ticks.steps
        for camera, image in observation.images.items():
            np.testing.assert_array_equal(images[camera][row], image)
        assert built.episode.state[row].tobytes() == observation.state.tobytes()
        for stream, stamp_ns in observation.stamps_ns.items():
            assert built.episode.stamps_ns[stream][row] == stamp_ns
            assert built.episode.valid[stream][row] == observation.valid[stream]
        late_images += int(built.ticks.ages_ns('eye')[row]) > 60_000_000
    assert late_images > 0, 'no image was late: this run proved nothing about late images'
    assert len({image.tobytes() for image in images['eye']}) > 10
