"""The links of pods: a veth pair with everything that makes the pod reachable, and its removal.

  pod                                   node
┌───────────────────────────┐         ┌──────────────────────────────────────────┐
│ eth0  a.b.c.d/32, v6/128  ├─────────┤ dp1f   no address                        │
│ default via 169.254.1.1   │  veth   │ a.b.c.d dev dp1f, permanent neighbour    │
│ default via fe80::1       │         │ v6      dev dp1f, permanent neighbour    │
└───────────────────────────┘         └──────────────────────────────────────────┘
  both next hops: permanent neighbours with dp1f's MAC
"""

import errno
import hashlib
import os
import re
import socket
from dataclasses import dataclass

from deltaplane.model.addresses import AddressPair
from nodeagent.cni.result import GATEWAY_IPV4, GATEWAY_IPV6
from nodeagent.netlink import inspect, message, namespace, sysctl
from nodeagent.netlink.channel import Channel
from nodeagent.netlink.inspect import Found
from nodeagent.netlink.message import Message, NetlinkError

NAME_PREFIX = "dp"
"""Host-side links are called dp and the endpoint number in hexadecimal."""

ALIAS = re.compile(r"deltaplane/(?P<uid>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})/[0-9]+")
"""What marks a pod link: node UID and endpoint number."""

LOOPBACK_INDEX = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLink:
    """What a pod's link is to be.

    A function of the journal entry, so that a restart finds the same.

    Attributes:
        number: endpoint number of this node.
        node_uid: marks the link as ours.
        ifname: name inside the pod.
        addresses: of the pod.
        mtu: of both ends, bytes.
    """

    number: int
    node_uid: str
    ifname: str
    addresses: AddressPair
    mtu: int

    @property
    def host_name(self) -> str:
        """Name of the host-side link."""
        return host_name(self.number)

    @property
    def alias(self) -> str:
        """Text on the host-side link that says whose it is."""
        return f"{alias_prefix(self.node_uid)}{self.number}"

    @property
    def host_mac(self) -> bytes:
        """6 bytes."""
        return self._mac(b"host")

    @property
    def pod_mac(self) -> bytes:
        """6 bytes."""
        return self._mac(b"pod")

    def _mac(self, side: bytes) -> bytes:
        seed = b"%s/%d/%s" % (self.node_uid.encode(), self.number, side)
        # 02: locally administered, unicast.
        return b"\x02" + hashlib.blake2b(seed, digest_size=5).digest()


def host_name(number: int) -> str:
    """Name of the host-side link of an endpoint number."""
    return f"{NAME_PREFIX}{number:x}"


def alias_prefix(node_uid: str) -> str:
    """What the alias of every link of this node's agent starts with."""
    return f"deltaplane/{node_uid}/"


def host_messages(link: PodLink, index: int) -> list[Message]:
    """Makes the node reach the pod."""
    messages = [message.link_up(index, link.host_name, link_local=False, alias=link.alias)]
    for address in link.addresses:
        messages.append(message.new_neighbour(index, address, link.pod_mac))
        messages.append(message.route((address, len(address) * 8), index=index))
    return messages


def pod_messages(link: PodLink, index: int) -> list[Message]:
    """Makes the pod reach everything."""
    messages = [
        message.link_up(LOOPBACK_INDEX, "lo"),
        message.link_up(index, link.ifname),
    ]
    for address in link.addresses:
        gateway = GATEWAY_IPV4 if len(address) == 4 else GATEWAY_IPV6
        default = (bytes(len(address)), 0)
        messages += [
            message.new_address(index, address),
            message.new_neighbour(index, gateway, link.host_mac),
            # A pod's second interface does not take over the route of the first.
            message.route(default, index=index, gateway=gateway, onlink=True, keep=True),
        ]
    return messages


class Links:
    """Makes and removes pod links.

    Blocking; for one thread at a time, which must be in the node's namespace.

    The thread visits pod namespaces, so it must not be the main one.
    """

    def __init__(self) -> None:
        self._channel = Channel()
        self._home = namespace.own()

    def close(self) -> None:
        """Lets go of the node's namespace."""
        self._channel.close()
        os.close(self._home)

    def create(self, link: PodLink, netns: int) -> int:
        """Makes a link whole, or leaves nothing; returns the index of the host-side link.

        Raises:
            NetlinkError: the kernel refuses; EEXIST when the pod has an interface of that name.
            OSError: the namespace cannot be entered.
        """
        pair = message.new_veth(
            host_name=link.host_name,
            host_mac=link.host_mac,
            pod_name=link.ifname,
            pod_mac=link.pod_mac,
            netns_fd=netns,
            mtu=link.mtu,
        )
        self._channel.run([pair])
        # An ioctl: a netlink look-up would collect all statistics of the link.
        index = socket.if_nametoindex(link.host_name)
        try:
            sysctl.set_for_link(sysctl.HOST_LINK, link.host_name)
            self._channel.run(host_messages(link, index))
            pod, pod_index = namespace.inside(netns, self._home, lambda: _prepare(link))
            with pod:
                pod.run(pod_messages(link, pod_index))
        except BaseException:
            self._channel.run([message.delete_link(index, link.host_name)])
            raise
        return index

    def delete(self, name: str) -> None:
        """Removes a host-side link and with it the pod's; fine when it is gone.

        Takes 20 ms in the kernel.
        """
        index = self.index(name)
        if index is not None:
            self._channel.run([message.delete_link(index, name)])

    def remove(self, link: PodLink) -> None:
        """As `delete`, but only what `create` has made: a name may be somebody else's."""
        try:
            found = self._channel.link(link.host_name)
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return
            raise
        # Not by the alias: a link has none yet when its maker is killed.
        if found.mac == link.host_mac:
            self._channel.run([message.delete_link(found.index, link.host_name)])

    def index(self, name: str) -> int | None:
        """Index of a link, or None."""
        try:
            return self._channel.link(name).index
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def inspect(self, link: PodLink, netns: int) -> Found:
        """Reads what is there of a link.

        Raises:
            OSError: the namespace cannot be entered.
        """
        with namespace.inside(netns, self._home, Channel) as pod:
            pod_end = inspect.find(pod, link.ifname)
            return Found(
                host=inspect.find(self._channel, link.host_name),
                pod=pod_end,
                addresses=inspect.addresses(pod, pod_end.index) if pod_end else frozenset(),
                routes=inspect.routes(pod),
            )

    def mtu(self, name: str) -> int:
        """MTU of a link, bytes."""
        return self._channel.link(name).mtu

    def ours(self, node_uid: str) -> dict[str, int]:
        """Name → index of the links that carry our name and our mark."""
        return {
            link.name: link.index
            for link in self._channel.links()
            if link.name.startswith(NAME_PREFIX) and link.alias.startswith(alias_prefix(node_uid))
        }

    def strangers(self, node_uid: str) -> tuple[str, ...]:
        """Names of the pod links that an agent of another UID has made."""
        return tuple(
            link.name
            for link in self._channel.links()
            if link.name.startswith(NAME_PREFIX)
            and (mark := ALIAS.fullmatch(link.alias))
            and mark["uid"] != node_uid
        )

    def run(self, messages: list[Message]) -> None:
        """Sends other requests from the node's namespace."""
        self._channel.run(messages)

    def dump(self, request: Message) -> list[bytes]:
        """Lists something of the node's namespace."""
        return self._channel.dump(request)


def _prepare(link: PodLink) -> tuple[Channel, int]:
    """Inside the pod: settings that must precede the link's start.

    Returns a socket that stays there, and the link's index.
    """
    sysctl.set_for_link(sysctl.POD_LINK, link.ifname)
    return Channel(), socket.if_nametoindex(link.ifname)
