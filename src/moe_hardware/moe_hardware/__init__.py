"""Hardware: camera, IMU, Dynamixel and motion nodes with byte-level simulators."""
