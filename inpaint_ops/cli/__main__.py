"""``python -m inpaint_ops.cli``."""

import sys

from inpaint_ops.cli.entry import main

sys.exit(main())
