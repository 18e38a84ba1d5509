"""Settings every test needs before anything is imported."""

import os

# Read by triton when it is imported: kernels run as numpy code. Tests that compile start a process without it.
os.environ["TRITON_INTERPRET"] = "1"
