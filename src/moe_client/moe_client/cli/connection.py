"""How the command line reaches the suite: over ROS, or over HTTP where --url or an API key is given."""

from __future__ import annotations

import os

from moe_client.client import Client


def connect() -> Client:
    """A client; MOE_URL and MOE_API_KEY, which --url and --api-key set, choose HTTP."""
    return Client(base_url=os.environ.get('MOE_URL', ''), api_key=os.environ.get('MOE_API_KEY', ''))
