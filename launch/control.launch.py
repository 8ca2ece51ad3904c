"""Drive a robot with a trained policy.

    ros2 launch q_transformer_ros control.launch.py checkpoint:=runs/push
    ros2 action send_goal /policy/run_episode q_transformer_ros/action/RunEpisode \
        "{instruction: 'push the red block to the left', max_duration_s: 20.0}"

With `record:=true contract:=FILE` the recorder runs beside it and records from
`/recorder/start_episode` to `/recorder/end_episode`. With `controllers:="arm_controller ..."` a
running ros2_control first gets the controllers that take the commands. `namespace:=left` names the
nodes `/left/policy` and `/left/recorder`; the topics of a contract are absolute and stay, unless
`remaps` says otherwise.
"""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node, PushRosNamespace, SetRemap
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare('q_transformer_ros')
CONTROLLERS = PathJoinSubstitution([SHARE, 'config', 'ros2_control', 'block_arm_controllers.yaml'])
# name: (type, default or None where it has to be given, description)
POLICY = {
    'checkpoint': (str, None, 'Run folder (its latest checkpoint) or checkpoint folder.'),
    'contract': (str, '', 'Contract (YAML) of this robot; empty: the one in the checkpoint.'),
    'use_sim_time': (bool, 'false', 'Take the time from /clock.'),
    'autostart': (bool, 'true', 'Configure and activate at once; else by `ros2 lifecycle`.'),
    'dry_run': (bool, 'false', 'Decide and report, publish no commands.'),
    'enable_timeout_s': (float, '0.0', 'Longest silence of ~/enable that may move [s]; 0: any.'),
    'teleop_prefix': (str, '', "Before the topics of a person's commands, who may take over."),
    'device': (str, 'cpu', 'Where the policy runs: cpu, cuda or cuda:N.'),
    'threads': (int, '1', 'Threads of torch.'),
    'weights': (str, 'float32', 'How the policy keeps its weights: float32, bfloat16 or int8.'),
    'command_rate_hz': (float, '50.0', "Command slots per second, a multiple of the contract's."),
    'start_timeout_s': (float, '10.0', 'How long the robot is waited for [s].'),
}
OTHER = {
    'params_file': (str, '', 'More parameters of the policy (YAML); those above come first.'),
    'namespace': (str, '', 'Of the nodes.'),
    'remaps': (str, '', 'Topics to exchange, FROM:=TO with blanks between, for both nodes.'),
    'record': (bool, 'false', 'Run the recorder as well; it needs `contract`.'),
    'out': (str, 'bags', 'Folder that the bags are put into.'),
    'controllers': (str, '', 'Controllers of ros2_control to start first; empty: none.'),
    'controllers_file': (str, CONTROLLERS, 'Their parameters (YAML).'),
    'controller_manager': (str, '/controller_manager', 'Who runs them.'),
}


def remaps(context) -> list:
    """Return the remappings that were asked for."""
    rules = LaunchConfiguration('remaps').perform(context).split()
    wrong = [rule for rule in rules if len(rule.split(':=')) != 2]
    if wrong:
        raise RuntimeError(
            f'remaps: {" ".join(wrong)}; needed: FROM:=TO with blanks between, such as '
            '"/joint_states:=/left/joint_states"'
        )
    return [SetRemap(*rule.split(':=')) for rule in rules]


def policy(context) -> list:
    """Return the policy node."""
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _, _) in POLICY.items()
    }
    more = LaunchConfiguration('params_file').perform(context)
    return [
        Node(
            package='q_transformer_ros',
            executable='policy',
            name='policy',
            parameters=[more, given] if more else [given],
            ros_arguments=['--enclave', '/q_transformer/policy'],
            output='screen',
            on_exit=Shutdown(reason='the policy ended'),
        )
    ]


def included(file: str, names: tuple, condition: IfCondition) -> IncludeLaunchDescription:
    """Return another launch file of this package with some of the arguments of this one."""
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([SHARE, 'launch', file])),
        launch_arguments={name: LaunchConfiguration(name) for name in names}.items(),
        condition=condition,
    )


def generate_launch_description() -> LaunchDescription:
    """Start the policy, and the recorder and the controllers if asked for."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (_, default, description) in {**POLICY, **OTHER}.items()
    ]
    asked = PythonExpression(["'", LaunchConfiguration('controllers'), "' != ''"])
    controllers = included(
        'ros2_control.launch.py',
        ('controllers', 'controllers_file', 'controller_manager'),
        IfCondition(asked),
    )
    recorder = included(
        'record.launch.py',
        ('contract', 'use_sim_time', 'out'),
        IfCondition(LaunchConfiguration('record')),
    )
    nodes = GroupAction(
        [
            PushRosNamespace(LaunchConfiguration('namespace')),
            OpaqueFunction(function=remaps),
            OpaqueFunction(function=policy),
            recorder,
        ]
    )
    return LaunchDescription([*declared, controllers, nodes])
