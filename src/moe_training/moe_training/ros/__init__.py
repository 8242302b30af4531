"""ROS adapters of moe_training; the only modules here that import rclpy."""
