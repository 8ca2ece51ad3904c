"""Let a policy attempt its tasks again and again, each attempt recorded and labelled.

    ros2 launch q_transformer_ros collect.launch.py checkpoint:=runs/push episodes:=20 \
        instructions:="['push the red block to the left', 'push the red block to the right']"

With `sim:=true` (the default) the simulated robot runs as well; `lockstep:=true` makes it as fast
as the slowest node. For a real robot: `sim:=false contract:=FILE reset_service:="''"`.
"""

from typing import List  # noqa: UP035 - the spelling that every distribution's launch_ros takes

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, Shutdown
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare('q_transformer_ros')
BLOCK_ARM = PathJoinSubstitution([SHARE, 'config', 'robots', 'block_arm.yaml'])
# name: (type, default or None where it has to be given, description)
COMMON = {
    'use_sim_time': (bool, LaunchConfiguration('lockstep'), 'Take the time from /clock.'),
}
POLICY = {
    'checkpoint': (str, None, 'Run folder (its latest checkpoint) or checkpoint folder.'),
    'contract': (str, BLOCK_ARM, 'Contract (YAML) of the robot.'),
    'device': (str, 'cpu', 'Where the policy runs: cpu, cuda or cuda:N.'),
}
COLLECTOR = {
    'episodes': (int, '10', 'How many attempts.'),
    'instructions': (List[str], "['']", 'What to ask for, in turn.'),  # noqa: UP006
    'seed': (int, '0', 'Seed of the first scene; negative: each is drawn.'),
    'max_duration_s': (float, '20.0', 'Time limit of an attempt [s].'),
    'record': (bool, 'true', 'Have each attempt recorded.'),
    'reset_service': (str, '/sim/reset', "Resets the scene; '': nobody does."),
    'success_topic': (str, '/sim/success', "The judge's std_msgs/Bool; '': there is none."),
}
OTHER = {
    'sim': (bool, 'true', 'Run the simulated robot.'),
    'lockstep': (bool, 'false', 'Simulated time, as fast as the slowest node.'),
    'out': (str, 'bags', 'Folder that the bags are put into.'),
}


def _parameters(arguments: dict) -> dict:
    return {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _, _) in arguments.items()
    }


def _included(file: str, names: tuple, condition: str) -> IncludeLaunchDescription:
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([SHARE, 'launch', file])),
        launch_arguments={name: LaunchConfiguration(name) for name in names}.items(),
        condition=IfCondition(LaunchConfiguration(condition)),
    )


def generate_launch_description() -> LaunchDescription:
    """Start robot, recorder, policy and collector; all end with the collector."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (_, default, description) in {**OTHER, **COMMON, **POLICY, **COLLECTOR}.items()
    ]
    policy = Node(
        package='q_transformer_ros',
        executable='policy',
        name='policy',
        parameters=[
            _parameters({**COMMON, **POLICY}),
            {'autostart': True, 'start_timeout_s': 30.0},
        ],
        ros_arguments=['--enclave', '/q_transformer/policy'],
        output='screen',
        on_exit=Shutdown(reason='the policy ended'),
    )
    collector = Node(
        package='q_transformer_ros',
        executable='collector',
        name='collector',
        parameters=[_parameters({**COMMON, **COLLECTOR})],
        ros_arguments=['--enclave', '/q_transformer/collector'],
        output='screen',
        on_exit=Shutdown(reason='the collector ended'),
    )
    return LaunchDescription(
        [
            *declared,
            _included('sim.launch.py', ('lockstep',), 'sim'),
            _included('record.launch.py', ('contract', 'use_sim_time', 'out'), 'record'),
            policy,
            collector,
        ]
    )
