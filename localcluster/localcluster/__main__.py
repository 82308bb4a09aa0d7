"""Lets ``python -m localcluster`` do what the script does."""

import sys

from localcluster.cli import main

sys.exit(main())
