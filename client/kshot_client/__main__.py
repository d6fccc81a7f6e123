"""`python -m kshot_client` is `kshot`."""

import sys

from kshot_client.command.main import main

if __name__ == "__main__":
    sys.exit(main())
