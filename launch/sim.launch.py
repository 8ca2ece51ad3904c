"""The simulated robot: `ros2 launch q_transformer_ros sim.launch.py lockstep:=true`."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

# name: (type, default, description)
ARGUMENTS = {
    'lockstep': (
        bool,
        'false',
        'Publish /clock and wait for the driver of an episode, as fast as it goes; start every '
        'other node with use_sim_time:=true.',
    ),
    'instruction': (str, 'push the red block to the left', 'Task of the scene at start.'),
    'seed': (int, '0', 'Of the scene at start; negative: draw one.'),
    'image_height': (int, '64', 'Height of both cameras [px].'),
    'image_width': (int, '64', 'Width of both cameras [px].'),
    'rate_hz': (float, '10.0', 'Commands per second that lockstep waits for [Hz].'),
}


def generate_launch_description() -> LaunchDescription:
    """Start the simulated robot."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (_, default, description) in ARGUMENTS.items()
    ]
    parameters = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _, _) in ARGUMENTS.items()
    }
    robot = Node(
        package='q_transformer_ros',
        executable='sim_robot',
        name='sim_robot',
        parameters=[parameters],
        ros_arguments=['--enclave', '/q_transformer/sim_robot'],
        output='screen',
    )
    return LaunchDescription([*declared, robot])
