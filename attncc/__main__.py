"""`python -m attncc` is `attncc`."""

import sys

from attncc.cli.main import main

sys.exit(main())
