"""ROS adapters of moe_router; the only modules here that import rclpy."""
