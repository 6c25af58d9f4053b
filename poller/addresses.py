"""Which addresses an untrusted link may lead to, and HTTP connections to those only (SSRF protection).

A job's link could point at something that only this machine can reach: a cloud's metadata service, the provider's network,
our own admin page. A host name is therefore resolved once, its addresses are checked, and the connection goes to one of the
checked addresses: no second lookup could give a different answer. The caller follows redirects, each through here again.
Neither proxies nor anything else from the environment is used.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from errors import InvalidInput

#: What getaddrinfo gives for one address: the family, and what connect() wants.
Address = tuple[socket.AddressFamily, tuple[Any, ...]]
#: open_socket(host, port, timeout_s): a connected socket.
OpenSocket = Callable[[str, int, float], socket.socket]

_IPV4_REFUSED = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's metadata and host service, in public address space
    )
]  # fmt: skip
#: The only public part of IPv6; loopback, mapped IPv4, NAT64, local and multicast addresses are outside.
_IPV6_PUBLIC = ipaddress.IPv6Network("2000::/3")
_IPV6_REFUSED = [
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")  # protocols (Teredo), examples, 6to4, examples
]


class Refused(Exception):
    """The host has no address that a link may lead to."""


class NoSuchHost(Exception):
    """DNS says that the name does not exist."""


class NotReached(Exception):
    """DNS is unavailable, or no address of the host accepts a connection. The message is fit for the user."""


def host_of(url: str, field: str) -> str:
    """The host of a link. Raises InvalidInput if the link is malformed or not allowed."""
    if re.search(r"[\x00-\x1f\x7f\\]", url) or len(url) > 8192:
        raise InvalidInput(f"{field}: the link has control characters or backslashes, or is over 8192 long", stage="download")
    try:
        parts = urlsplit(url)
        host, port, name = parts.hostname, parts.port, parts.username
    except ValueError:
        raise InvalidInput(f"{field}: the link is malformed", stage="download") from None
    if parts.scheme not in ("http", "https"):
        raise InvalidInput(f"{field}: {parts.scheme[:20]!r} links are not allowed, only http:// and https://", stage="download")
    if name is not None or parts.password is not None:
        raise InvalidInput(f"{field}: a user name or password in a link is not allowed", stage="download")
    if not host or port == 0:
        raise InvalidInput(f"{field}: the link has no host", stage="download")
    return host


def is_public(address: str) -> bool:
    """Whether a numeric address belongs to the public internet."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in _IPV4_REFUSED)
    return parsed in _IPV6_PUBLIC and not any(parsed in network for network in _IPV6_REFUSED)


def resolve(host: str, port: int) -> list[Address]:
    """Every address of a host, the preferred one first. Raises NoSuchHost or NotReached. May block for many seconds."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a label that is empty or too long
        raise NoSuchHost from None
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            raise NoSuchHost from None
        raise NotReached("its name could not be resolved") from None
    return [(family, address) for family, _, _, _, address in found]


def permitted(addresses: list[Address], allow_private: bool) -> list[Address]:
    """The addresses that a link may lead to. Raises Refused if none is left."""
    kept = [address for address in addresses if allow_private or is_public(address[1][0])]
    if not kept:
        raise Refused
    return kept


def connect(addresses: list[Address], timeout_s: float, allow_private: bool) -> socket.socket:
    """A connection to the first address that accepts one; they share the time. Raises NotReached or Refused."""
    deadline = time.monotonic() + timeout_s
    reason = "it accepts no connection"
    for position, (family, address) in enumerate(addresses):
        share_s = (deadline - time.monotonic()) / (len(addresses) - position)
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(max(share_s, 0.1))
            connection.connect(address)
        except TimeoutError:
            reason = "it did not answer in time"
            connection.close()
        except OSError as error:
            reason = (error.strerror or "it accepts no connection").lower()
            connection.close()
        else:
            if not allow_private and connection.getsockname()[0] == connection.getpeername()[0]:
                connection.close()
                raise Refused  # a public address, but this machine's own
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(timeout_s)
            return connection
    raise NotReached(reason)


def adapter(open_socket: OpenSocket) -> HTTPAdapter:
    """An HTTP(S) client whose connections come from `open_socket`; TLS and `Host` still use the name.

    Exceptions from `open_socket` reach the caller unchanged, except OSErrors. Use its `send`, not a session: a session reads
    the whole body of a redirect into memory.
    """
    # urllib3's debug line contains the query of a link, and with it the signature of a signed one.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)

    def opened(connection: HTTPConnection) -> socket.socket:
        timeout_s = connection.timeout if isinstance(connection.timeout, int | float) else 10.0
        return open_socket(connection.host, connection.port or connection.default_port, timeout_s)

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return opened(self)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return opened(self)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    made = HTTPAdapter(max_retries=0, pool_connections=1, pool_maxsize=1)
    made.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    # By default urllib3 closes a pool, and its idle connections, when it is garbage-collected. Ours hold `open_socket`, and
    # through it the error with all its frames and the pool itself: a leak of 34 KB.
    made.poolmanager.pools.dispose_func = HTTPConnectionPool.close
    return made
