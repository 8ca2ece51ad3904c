"""Parameters over their services: described, bounded, changed where that is safe, else refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import policy_rig
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('q_transformer_ros', reason='the interfaces are not built')

from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from rclpy.parameter import Parameter

from qt_ros.nodes.control.parameters import PARAMETERS, RUNTIME

pytestmark = pytest.mark.ros
OF_RCLPY = {'use_sim_time', 'start_type_description_service'}


class Parameters:
    """The parameter services of a node."""

    def __init__(self, client: policy_rig.Client, node: str) -> None:
        self._client, self._node = client, node

    def refusal(self, name: str, value: Any) -> str:
        """Set a parameter; return why it was refused, '' if it was not."""
        parameter = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        (result,) = self._client.call(
            SetParameters, f'{self._node}/set_parameters', request
        ).results
        assert result.successful != bool(result.reason)
        return result.reason

    def get(self, name: str) -> Any:
        request = GetParameters.Request(names=[name])
        answer = self._client.call(GetParameters, f'{self._node}/get_parameters', request)
        return Parameter.from_parameter_msg(_message(name, answer.values[0])).value

    def descriptors(self) -> dict[str, Any]:
        listed = self._client.call(
            ListParameters, f'{self._node}/list_parameters', ListParameters.Request()
        )
        request = DescribeParameters.Request(names=listed.result.names)
        answer = self._client.call(
            DescribeParameters, f'{self._node}/describe_parameters', request
        )
        return {each.name: each for each in answer.descriptors if each.name not in OF_RCLPY}


def _message(name: str, value: Any) -> Any:
    from rcl_interfaces.msg import Parameter as Message

    return Message(name=name, value=value)


def test_parameters_of_the_policy(ros_domain: int, tmp_path: Path):
    run = policy_rig.make_checkpoint(tmp_path / 'run')
    with policy_rig.running(policy_rig.robot(), policy_rig.policy(run, command_rate_hz=20.0)) as (
        client,
        *_,
    ):
        parameters = Parameters(client, '/policy')
        found = parameters.descriptors()
        assert set(found) == set(PARAMETERS)
        assert all(each.description for each in found.values())
        (bounds,) = found['command_rate_hz'].floating_point_range
        assert (bounds.from_value, bounds.to_value) == (0.5, 1000.0)
        assert found['threads'].integer_range[0].to_value == 64
        check_bounds(parameters, found)
        # While the node is active: what takes effect can be changed, the rest says what to do.
        for name in set(PARAMETERS) - set(RUNTIME) - {'policy_id'}:
            reason = parameters.refusal(name, parameters.get(name))
            assert reason == f'{name} cannot change now; clean the node up first'
        assert parameters.refusal('policy_id', 'mine') == 'policy_id is set by the node'
        assert parameters.refusal('dry_run', True) == ''
        check_dry_run(client)
        assert parameters.refusal('dry_run', False) == ''
        # Cleaned up, it takes another rate, and configures with it.
        client.change_state(Transition.TRANSITION_DEACTIVATE)
        client.change_state(Transition.TRANSITION_CLEANUP)
        assert parameters.refusal('command_rate_hz', 10.0) == ''
        client.change_state(Transition.TRANSITION_CONFIGURE)
        assert 'cannot change now' in parameters.refusal('command_rate_hz', 20.0)
        assert parameters.get('command_rate_hz') == 10.0


def check_bounds(parameters: Parameters, found: dict[str, Any]) -> None:
    """Check that nothing outside of a range, no NaN and no other type is taken."""
    for name, each in found.items():
        before = parameters.get(name)
        for bounds in each.floating_point_range:
            for value in (bounds.from_value - 1.0, bounds.to_value * 2, math.inf, math.nan):
                assert parameters.refusal(name, value), (name, value)
        for bounds in each.integer_range:
            for value in (bounds.from_value - 1, bounds.to_value + 1):
                assert parameters.refusal(name, value), (name, value)
        text = each.type == ParameterType.PARAMETER_STRING
        assert parameters.refusal(name, 3 if text else 'three'), name
        assert parameters.get(name) == before


def check_dry_run(client: policy_rig.Client) -> None:
    """Check that an episode publishes no command, although its goal did not ask for that."""
    from trajectory_msgs.msg import JointTrajectory

    commands = client.keep(JointTrajectory, '/arm/joint_trajectory')
    client.until(lambda: client.node.count_publishers('/arm/joint_trajectory'), what='the policy')
    result = client.result(client.send_goal(instruction='do it', max_duration_s=1.0))
    assert result.steps > 0, result
    client.spin(0.3)
    assert commands == []


def test_parameters_that_are_read_once_say_so(ros_domain: int, tmp_path: Path):
    with policy_rig.running(policy_rig.recorder(tmp_path)) as (client, *_):
        parameters = Parameters(client, '/recorder')
        for name, each in parameters.descriptors().items():
            assert each.description, name
            assert each.read_only, name
            assert parameters.refusal(name, parameters.get(name)), name
