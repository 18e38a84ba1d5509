"""Settings every test needs before anything is imported."""

import os
import tempfile

# With ATTNCC_TEST_DEVICE=cuda the kernel tests run on a GPU: those of tests/codegen that CONTRIBUTING names.
if os.environ.get("ATTNCC_TEST_DEVICE", "cpu") == "cpu":
    # Read by triton when it is imported: kernels run as numpy code. Tests that compile start a process without it.
    os.environ["TRITON_INTERPRET"] = "1"

# Read by attncc's api when it is imported: no test touches the user's own cache.
_cache = tempfile.TemporaryDirectory(prefix="attncc-tests-")
os.environ["ATTNCC_CACHE_DIR"] = _cache.name
