"""Inertial measurement: BNO055 driver, complementary filter, calibration."""
