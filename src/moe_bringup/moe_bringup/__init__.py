"""Bring-up: launch files, parameter files, the process table and its supervisor."""
