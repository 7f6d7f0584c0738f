"""`python -m expvqa_lib`: the same as the command `expvqa`."""

import sys

from .pipeline.cli import main

sys.exit(main())
