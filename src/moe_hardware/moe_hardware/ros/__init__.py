"""ROS adapters of moe_hardware; the only modules here that import rclpy."""
