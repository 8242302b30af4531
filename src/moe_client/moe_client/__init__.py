"""Client: the Python SDK and the moe command."""
