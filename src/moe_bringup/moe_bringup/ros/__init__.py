"""The ROS side of the bring-up: launch descriptions, the parameters that nodes declare, markers."""
