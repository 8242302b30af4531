"""ROS adapters of moe_experts; the only modules here that import rclpy."""
