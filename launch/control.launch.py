"""Drive a robot with a trained policy.

    ros2 launch q_transformer_ros control.launch.py checkpoint:=runs/push
    ros2 action send_goal /policy/run_episode q_transformer_ros/action/RunEpisode \
        "{instruction: 'push the red block to the left', max_duration_s: 20.0}"

With `record:=true contract:=FILE` the recorder runs beside it and records from
`/recorder/start_episode` to `/recorder/end_episode`.
"""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node, PushRosNamespace
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare('q_transformer_ros')
# name: (type, default or None where it has to be given, description)
POLICY = {
    'checkpoint': (str, None, 'Run folder (its latest checkpoint) or checkpoint folder.'),
    'contract': (str, '', 'Contract (YAML) of this robot; empty: the one in the checkpoint.'),
    'use_sim_time': (bool, 'false', 'Take the time from /clock.'),
    'autostart': (bool, 'true', 'Configure and activate at once; else by `ros2 lifecycle`.'),
    'dry_run': (bool, 'false', 'Decide and report, publish no commands.'),
    'device': (str, 'cpu', 'Where the policy runs: cpu, cuda or cuda:N.'),
    'threads': (int, '1', 'Threads of torch.'),
    'command_rate_hz': (float, '50.0', "Command slots per second, a multiple of the contract's."),
    'start_timeout_s': (float, '10.0', 'How long the robot is waited for [s].'),
}
OTHER = {
    'namespace': (str, '', 'Of the nodes.'),
    'record': (bool, 'false', 'Run the recorder as well; it needs `contract`.'),
    'out': (str, 'bags', 'Folder that the bags are put into.'),
}


def generate_launch_description() -> LaunchDescription:
    """Start the policy, and the recorder if asked for."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (_, default, description) in {**POLICY, **OTHER}.items()
    ]
    policy = Node(
        package='q_transformer_ros',
        executable='policy',
        name='policy',
        parameters=[
            {
                name: ParameterValue(LaunchConfiguration(name), value_type=kind)
                for name, (kind, _, _) in POLICY.items()
            }
        ],
        output='screen',
        on_exit=Shutdown(reason='the policy ended'),
    )
    recorder = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([SHARE, 'launch', 'record.launch.py'])),
        launch_arguments={
            name: LaunchConfiguration(name) for name in ('contract', 'use_sim_time', 'out')
        }.items(),
        condition=IfCondition(LaunchConfiguration('record')),
    )
    namespace = PushRosNamespace(LaunchConfiguration('namespace'))
    return LaunchDescription([*declared, GroupAction([namespace, policy, recorder])])
