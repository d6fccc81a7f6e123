"""`python -m training.synthetic`: write a set of synthetic actions."""

import sys

from training.synthetic.actions import main

if __name__ == "__main__":
    sys.exit(main())
