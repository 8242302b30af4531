"""Experts: engines, the expert node, the registry and its node."""
