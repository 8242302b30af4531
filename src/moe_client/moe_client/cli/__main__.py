"""`python -m moe_client.cli`."""

import sys

from moe_client.cli import main

sys.exit(main())
