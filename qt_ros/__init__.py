"""Q-Transformer for ROS 2: bags to episodes, episodes to a policy, a policy to commands."""
