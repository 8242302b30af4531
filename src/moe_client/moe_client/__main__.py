"""`python -m moe_client`."""

import sys

from moe_client.cli import main

sys.exit(main())
