"""``python -m archtuna`` is the command line."""

import sys

from archtuna.cli import main

sys.exit(main())
