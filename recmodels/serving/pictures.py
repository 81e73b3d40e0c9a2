"""Which addresses of pictures, written by strangers into metadata, a browser may be told to load."""

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

_PORTS = {None, 80, 443}
_PRIVATE = {"localhost", "local", "internal", "lan", "home"}


@lru_cache(maxsize=1 << 16)
def loadable_picture(address: str) -> str | None:
    """
    Return an address of a picture that a browser may be told to load, None for anything else.

    That is http or https on a usual port, of a host with a public name: metadata of strangers must not reach servers of
    the reader's own network, nor carry a user name.

    Examples
    --------
    >>> loadable_picture("https://images.example.com/1.jpg")
    'https://images.example.com/1.jpg'
    >>> [loadable_picture(f"http://{host}/1.jpg") for host in ("127.0.0.1", "router", "localhost", "a.example:8080")]
    [None, None, None, None]
    >>> loadable_picture("javascript:alert(1)")
    """
    try:
        parts = urlsplit(address)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return None
    usual = parts.scheme in ("http", "https") and port in _PORTS and "@" not in parts.netloc
    return address if usual and _is_public_name(host) else None


def _is_public_name(host: str) -> bool:
    *labels, last = host.split(".")
    if not labels or last in _PRIVATE:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # Numbers alone are an address in disguise: browsers read 127.1 as one.
        return not last[:1].isdigit()
    return False
