"""The parameters of the policy node, and which of them may change while it is configured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

# name: (default, description, range)
PARAMETERS: dict[str, tuple[Any, str, tuple[float, float] | None]] = {
    'checkpoint': ('', 'Run folder (its latest checkpoint) or checkpoint folder.', None),
    'contract': (
        '',
        'Contract of this robot (YAML) instead of the one in the checkpoint; its rate, cameras, '
        'state fields and action dimensions must agree.',
        None,
    ),
    'autostart': (False, 'Configure and activate without being asked.', None),
    'device': ('cpu', 'Where the policy runs: cpu, cuda or cuda:N.', None),
    'threads': (1, 'Threads of torch.', (1, 64)),
    'weights': ('float32', 'How the policy keeps its weights: float32, bfloat16 or int8.', None),
    'command_rate_hz': (
        50.0,
        "Command slots per second; a multiple of the contract's rate.",
        (0.5, 1000.0),
    ),
    'start_timeout_s': (
        10.0,
        'How long configure waits for the robot, and an episode for fresh streams [s].',
        (0.1, 600.0),
    ),
    'enable_timeout_s': (
        0.0,
        'Nothing moves without a true on ~/enable at least this often [s]; 0 asks nobody.',
        (0.0, 60.0),
    ),
    'teleop_prefix': (
        '',
        "A person's commands come on this prefix before each command topic, such as /teleop, and "
        'have priority; empty: nobody takes over.',
        None,
    ),
    'takeover_timeout_s': (
        0.5,
        "How long a person's last command counts; then the policy drives again [s].",
        (0.05, 10.0),
    ),
    'instruction': ('', 'What ~/start lets the policy do.', None),
    'max_duration_s': (30.0, 'How long ~/start lets it try [s].', (0.1, 3600.0)),
    'dry_run': (False, 'Decide and report in every episode, publish no commands.', None),
    'policy_id': ('', 'Set by the node: which checkpoint is loaded.', None),
}
# Safe to change at any time.
RUNTIME = (
    'autostart',
    'start_timeout_s',
    'enable_timeout_s',
    'instruction',
    'max_duration_s',
    'dry_run',
)


def declare_parameters(node: Node) -> None:
    """Declare every parameter with its description and range."""
    for name, (default, description, limits) in PARAMETERS.items():
        descriptor = ParameterDescriptor(description=description)
        if limits is not None and isinstance(default, float):
            low, high = limits
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        elif limits is not None:
            low, high = limits
            descriptor.integer_range = [
                IntegerRange(from_value=int(low), to_value=int(high), step=1)
            ]
        node.declare_parameter(name, default, descriptor)


class ParameterGuard:
    """Refuses changes that would not take effect, and any but the node's own of `policy_id`."""

    def __init__(self, node: Node, configured: Callable[[], bool]) -> None:
        self._node = node
        self._configured = configured
        self._own_change = False
        node.add_on_set_parameters_callback(self._check)

    def set_policy_id(self, policy_id: str) -> None:
        """Tell which checkpoint is loaded."""
        self._own_change = True
        try:
            self._node.set_parameters([Parameter('policy_id', value=policy_id)])
        finally:
            self._own_change = False

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        problems = []
        for parameter in parameters:
            if parameter.name not in PARAMETERS or parameter.name in RUNTIME or self._own_change:
                continue
            if parameter.name == 'policy_id':
                problems.append('policy_id is set by the node')
            elif self._configured():
                problems.append(f'{parameter.name} cannot change now; clean the node up first')
        return SetParametersResult(successful=not problems, reason='; '.join(problems))
