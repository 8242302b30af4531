"""The HTTP gateway: OpenAI's API, the suite's own, events, metrics and the dashboard. Free of ROS."""
