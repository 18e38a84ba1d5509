"""Which backend a command can use here, said before anything heavy is done."""

from __future__ import annotations

import importlib.util
import os

from attncc.errors import BackendError


def require_triton() -> None:
    """Raises BackendError where Triton is not installed, as on anything but Linux."""
    if importlib.util.find_spec("triton") is None:
        raise BackendError("this needs Triton, which is not installed here: it is to be had for Linux only")


def triton_device() -> tuple[str, str]:
    """The torch device that generated kernels run on, and what to call it: a GPU, or Triton's interpreter on the CPU.

    To be asked before Triton is first imported, since that is when it reads TRITON_INTERPRET.
    """
    require_triton()
    import torch

    interpreter = "Triton's interpreter on the CPU"
    if not torch.cuda.is_available():
        # This process exists for one command alone.
        os.environ["TRITON_INTERPRET"] = "1"
        return "cpu", interpreter
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        return "cpu", f"{interpreter}, since TRITON_INTERPRET is set"
    return "cuda", torch.cuda.get_device_name()
