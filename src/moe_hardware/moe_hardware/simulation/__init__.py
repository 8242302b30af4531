"""Simulators that speak the wire protocols of the devices on pseudo-terminals."""
