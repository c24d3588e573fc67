"""`python -m mtorl` and the installed command `mtorl`."""

import sys

from mtorl.cli import main

if __name__ == "__main__":
    sys.exit(main())
