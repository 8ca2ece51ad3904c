"""Record episodes: `ros2 launch q_transformer_ros record.launch.py out:=bags contract:=arm.yaml`.

With `plan` a scripted teleoperator drives the simulated robot, and the launch ends with it:
`... plan:=expert:20,noisy:10 use_sim_time:=true` beside `sim.launch.py lockstep:=true`.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

BLOCK_ARM = PathJoinSubstitution(
    [FindPackageShare('q_transformer_ros'), 'config', 'robots', 'block_arm.yaml']
)
# name: (type, default, description)
COMMON = {
    'contract': (str, BLOCK_ARM, 'Contract (YAML) of the robot.'),
    'use_sim_time': (bool, 'false', 'Take the time from /clock.'),
}
RECORDER = {
    'out': (str, 'bags', 'Folder that the bags are put into, one per episode.'),
    'extra_topics': (
        list[str],
        "['']",
        "More topics to record, each 'TOPIC TYPE': \"['/tf tf2_msgs/msg/TFMessage']\".",
    ),
    'min_free_mb': (int, '200', 'Free space that an episode needs to begin [MB].'),
}
TELEOP = {
    'plan': (
        str,
        '',
        "Attempts of a scripted teleoperator, 'MODE:N,...' with expert, noisy, random; empty: "
        'none, somebody else drives and calls /recorder/start_episode and end_episode.',
    ),
    'instructions': (
        list[str],
        "['push the red block to the left', 'push the red block to the right']",
        "The teleoperator's tasks, which take turns.",
    ),
    'seed': (int, '0', "Of the teleoperator's scenes and mistakes."),
    'max_duration_s': (float, '10.0', "The teleoperator's longest attempt [s]."),
}


def _parameters(arguments: dict) -> dict:
    return {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _, _) in arguments.items()
    }


def generate_launch_description() -> LaunchDescription:
    """Start the recorder, and the scripted teleoperator when there is a plan for it."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (_, default, description) in {**COMMON, **RECORDER, **TELEOP}.items()
    ]
    recorder = Node(
        package='q_transformer_ros',
        executable='recorder',
        name='recorder',
        parameters=[_parameters({**COMMON, **RECORDER})],
        ros_arguments=['--enclave', '/q_transformer/recorder'],
        output='screen',
    )
    teleop = Node(
        package='q_transformer_ros',
        executable='teleop',
        name='teleop',
        parameters=[_parameters({**COMMON, **TELEOP})],
        ros_arguments=['--enclave', '/q_transformer/teleop'],
        output='screen',
        condition=IfCondition(PythonExpression(["'", LaunchConfiguration('plan'), "' != ''"])),
        on_exit=Shutdown(reason='the teleoperator is done'),
    )
    return LaunchDescription([*declared, recorder, teleop])
