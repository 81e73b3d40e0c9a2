"""Which device a setting means; what runs there is not in here."""

import platform
from typing import TYPE_CHECKING

from recmodels.errors import InputError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str, *, setting: str, mps: bool = True) -> "torch.device":
    """
    Return the device that a setting names; ``auto`` is CUDA where it answers, else MPS if it may be used, else the CPU.

    Raises
    ------
    InputError
        If the named device does not answer; it names the setting.

    Examples
    --------
    >>> resolve_device("cpu", setting="training.device")
    device(type='cpu')
    """
    import torch

    answers = {"cuda": torch.cuda.is_available(), "mps": mps and torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in answers.items() if there)
    if not answers[name]:
        raise InputError(setting, expected=f"a {name.upper()} device that answers", found="none", action="Use auto.")
    return torch.device(name)


def device_name(name: str) -> str:
    """
    Return what computes where a setting names a device: the model of a GPU, or the processor and its threads.

    Examples
    --------
    >>> device_name("cpu").endswith("threads")
    True
    """
    import torch

    device = resolve_device(name, setting="training.device", mps=False)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {torch.get_num_threads()} threads"
