"""Dynamixel servos: register map, bus over the real dynamixel-sdk, safety, and the thread that owns the bus."""
