"""`python -m mtorl` and the installed command `mtorl`."""

import sys

from mtorl.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
