"""Load and activate controllers of a running ros2_control `controller_manager`.

    ros2 launch q_transformer_ros ros2_control.launch.py controllers_file:=my_controllers.yaml \
        controllers:="joint_state_broadcaster arm_controller"

The controllers' names are those of the file. It ends when all of them are active.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

EXAMPLE = PathJoinSubstitution(
    [
        FindPackageShare('q_transformer_ros'),
        'config',
        'ros2_control',
        'block_arm_controllers.yaml',
    ]
)
# name: (default, description)
ARGUMENTS = {
    'controllers': (
        'joint_state_broadcaster arm_controller gripper_controller',
        'Names of the controllers, in the order in which they start.',
    ),
    'controllers_file': (EXAMPLE, 'Their parameters (YAML).'),
    'controller_manager': ('/controller_manager', 'Name of the controller manager.'),
}


def spawner(context) -> list:
    """Return the node that starts the controllers; it waits for the controller manager."""
    names = LaunchConfiguration('controllers').perform(context).split()
    return [
        Node(
            package='controller_manager',
            executable='spawner',
            arguments=[
                *names,
                '--controller-manager',
                LaunchConfiguration('controller_manager'),
                '--param-file',
                LaunchConfiguration('controllers_file'),
            ],
            output='screen',
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Start the controllers."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=spawner)])
