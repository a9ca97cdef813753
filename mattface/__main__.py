"""`python -m mattface` is the command `mattface`."""

import sys

from mattface.cli import main

if __name__ == "__main__":
    sys.exit(main())
