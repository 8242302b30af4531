"""A process with the IMU node on a simulated MPU-6050: `python -m mpu6050_process PATH_OF_THE_BUS`."""

import sys
import time
from pathlib import Path

from moe_hardware.ros import imu_node
from moe_hardware.simulation.i2c_bus import SimulatedI2cBus
from moe_hardware.simulation.inertial_body import SensorErrors
from moe_hardware.simulation.mpu6050_chip import Mpu6050

if __name__ == '__main__':
    path = Path(sys.argv[1])
    chip = Mpu6050(SensorErrors(3, 0.0), False, time.monotonic)
    sys.argv[1:] = ['--ros-args', '-r', '__ns:=/moe', '-p', 'driver:=mpu6050', '-p', f'port_name:={path}']
    with SimulatedI2cBus(path, {0x68: chip}):
        imu_node.main()
