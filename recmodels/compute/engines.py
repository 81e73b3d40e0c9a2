"""Engines by name, from the options or the environment of a run. What they do is theirs to say."""

import importlib.util
import os

from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.errors import InputError

ENGINE_VARIABLE = "RECMODELS_COMPUTE"
ADDRESS_VARIABLE = "RAY_ADDRESS"
ENGINES = ("local", "ray")


def compute_from(engine: str = "", address: str = "") -> Compute:
    """
    Return the place where large stages are computed. Nothing is started or asked before the first block.

    Parameters
    ----------
    engine
        ``local`` or ``ray``; empty for the environment variable ``RECMODELS_COMPUTE``, or else ``local``.
    address
        Of the head of a Ray cluster, ``host:port``; empty for the environment variable ``RAY_ADDRESS``, or else Ray is
        started in this machine with all its cores, and ends with this process.

    Raises
    ------
    InputError
        If there is no such engine, it is not installed, or the address is one of Ray's client mode.

    Examples
    --------
    >>> compute_from("local").record()
    {'engine': 'local'}
    """
    engine = engine or os.environ.get(ENGINE_VARIABLE) or LOCAL.engine
    address = address or os.environ.get(ADDRESS_VARIABLE, "")
    if engine not in ENGINES:
        raise InputError(
            f"engine of large stages ({ENGINE_VARIABLE})", expected=f"one of {', '.join(ENGINES)}", found=repr(engine)
        )
    if engine == LOCAL.engine:
        return LOCAL
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            f"engine of large stages ({ENGINE_VARIABLE})",
            expected="the package of the engine it names, ray",
            found="no such package",
            action="Install it: pip install -c constraints.txt 'recmodels[cluster]'. Or set it to local.",
        )
    if address.startswith("ray://"):
        raise InputError(
            f"address of the cluster ({ADDRESS_VARIABLE})",
            expected="host:port of its head, from a process inside its network",
            found=repr(address),
            action="Start the run on a machine of the cluster: the client mode ends a run with its connection.",
        )
    from recmodels.compute.on_ray import OnRay

    return OnRay(address)
