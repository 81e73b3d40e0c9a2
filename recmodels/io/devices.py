"""Which device a setting means; what runs there is not in here."""

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
