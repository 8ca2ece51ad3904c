"""ROS 2 nodes; the only place (with launch files) that imports rclpy."""
