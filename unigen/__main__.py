"""`python -m unigen`: the same as the command `unigen`."""

import sys

from unigen.cli import main

if __name__ == "__main__":
    sys.exit(main())
