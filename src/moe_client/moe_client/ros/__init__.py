"""ROS adapters of moe_client; the only modules here that import rclpy."""
