"""What services write in a story: references before what refers to them, an address only once."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.model.identity import FIRST_IDENTITY, Identity, LabelSet
from deltaplane.model.objects import BlockObject, EndpointObject, NodeObject, PoolObject
from deltaplane.model.policy import NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import NamedPort, Protocol
from deltaplane.model.selector import LabelSelector
from services.slicer.facts import Content, EndpointRecord, NodeRecord
from services.slicer.watermark import Fence
from tests.sim.stream_oracle import History

IDS_PER_NODE = 3
APPS, TIERS = 3, 2
IDENTITIES_AT_MOST = 7
ADDRESSES = 9
POLICIES = 4

Write = tuple[str, Content | None]


@dataclass(slots=True)
class Address:
    """An address that nobody holds. released: since this revision, of the lineage."""

    number: int
    lineage: bytes
    released: int = 0

    @property
    def pair(self) -> AddressPair:
        return AddressPair(
            ipv4=bytes((10, 244, 0, self.number)), ipv6=b"\xfd" + bytes(14) + bytes((self.number,))
        )


class Writes:
    """Random transactions. `may_use` says whether a node may take an address, which it leaves."""

    def __init__(
        self,
        chance: random.Random,
        history: History,
        may_use: Callable[[int, Address], bool],
    ) -> None:
        self.random, self.history, self._may_use = chance, history, may_use
        self.next_identity, self.next_node = FIRST_IDENTITY, 1
        self.free = [Address(number, history.lineage) for number in range(1, ADDRESSES + 1)]
        self._all: list[tuple[int, Callable[[], list[Write]]]] = [
            (30, self.endpoint_comes),
            (14, self.endpoint_goes),
            (16, self.endpoint_moves),
            (4, self.endpoint_again),
            (6, self.identity_comes),
            (6, self.identity_goes),
            (12, self.policy),
            (4, self.block),
            (2, self.pool),
        ]
        self._weights: list[float] = [weight for weight, _ in self._all]

    def begin(self) -> None:
        """A cluster that is at work already."""
        for number in range(POLICIES - 1):
            key = f"policies/shop/p{number}"
            self.commit([(key, self._new_policy(key, peers=2))])
        for _ in range(20):
            self.write()

    def calm(self) -> None:
        """From now on, nearly all that is written is endpoints and identities."""
        rare = (self.policy, self.block, self.pool)
        self._weights = [w / 12 if kind in rare else w for w, kind in self._all]

    def restored(self, history: History) -> None:
        """The store is that of a backup: counters are raised, addresses wait for everybody."""
        self.history = history
        self.next_identity += 1 << 20
        self.next_node += 100
        taken = {e.object.addresses.ipv4 for e in self._endpoints()}
        self.free = [
            address
            for number in range(1, ADDRESSES + 1)
            if (address := Address(number, history.lineage, history.revision)).pair.ipv4
            not in taken
        ]

    # --- transactions ----------------------------------------------------------------------------

    def write(self) -> None:
        """One transaction of one or more writes."""
        writes: list[Write] = []
        for _ in range(self.random.choice((1, 1, 1, 1, 2, 3))):
            (kind,) = self.random.choices(self._all, self._weights)
            drawn = kind[1]()
            if {key for key, _ in drawn} & {key for key, _ in writes}:
                self._give_back(drawn)
            else:
                writes += drawn
        self.commit(writes)

    def commit(self, writes: list[Write]) -> None:
        """Writes; what it releases waits."""
        history = self.history
        named = {
            f"identities/{content.object.identity}"
            for _, content in writes
            if isinstance(content, EndpointRecord)
        }
        # Nothing is deleted that is not there, and no identity that something refers to.
        writes = [
            (key, content)
            for key, content in writes
            if content is not None or (key in history.present and key not in named)
        ]
        if not writes:
            return
        gone = [history.present.get(key) for key, content in writes if content is None]
        revision = history.write(*writes)
        for record in gone:
            if record is not None and isinstance(record.content, EndpointRecord):
                number = (record.content.object.addresses.ipv4 or b"\0")[-1]
                self.free.append(Address(number, history.lineage, revision))

    def _give_back(self, writes: list[Write]) -> None:
        for _, content in writes:
            if isinstance(content, EndpointRecord) and self._is_new(content.object):
                number = (content.object.addresses.ipv4 or b"\0")[-1]
                # As if released now: it waits longer than it has to.
                self.free.append(Address(number, self.history.lineage, self.history.revision))

    def _is_new(self, endpoint: EndpointObject) -> bool:
        return endpoint.incarnation > self.history.revision

    def flicker(self) -> None:
        """Writes that come to nothing, or nearly, within moments."""
        self.random.choice(
            (
                self._endpoint_flickers,
                self._policy_flickers,
                self._identity_flickers,
                self._endpoint_is_replaced,
            )
        )()

    def _endpoint_flickers(self) -> None:
        if self.random.random() < 0.5:
            self.commit(created := self.endpoint_comes())
            if self.random.random() < 0.5:
                self.commit(self.endpoint_moves())
            self.commit([(key, None) for key, c in created if isinstance(c, EndpointRecord)])
            return
        if not (found := self._endpoints()):
            return
        record = self.random.choice(found)
        self.commit(self._move(record.object, self._identity()))
        if self.random.random() < 0.5:
            self.commit(self.endpoint_comes())
        self.commit(self._move(record.object, record.object.identity))

    def _policy_flickers(self) -> None:
        key, before = self._policy_key()
        self.commit([(key, None if before is not None else self._new_policy(key))])
        self.write()
        self.commit([(key, before)])

    def _identity_flickers(self) -> None:
        self.commit(created := self.identity_comes())
        if not created or not isinstance(content := created[0][1], Identity):
            return
        if self.random.random() < 0.7:
            self.commit(endpoint := self.endpoint_comes(content.id))
            self.commit([(key, None) for key, c in endpoint if isinstance(c, EndpointRecord)])
        self.commit([(created[0][0], None)])

    # --- endpoints -------------------------------------------------------------------------------

    def _endpoints(self) -> list[EndpointRecord]:
        present = self.history.present.values()
        return [r.content for r in present if isinstance(r.content, EndpointRecord)]

    def _nodes(self) -> list[int]:
        return [record.object.index for record in self.history.nodes.values()]

    def _identity(self) -> int:
        found = [
            r.content.id for r in self.history.present.values() if isinstance(r.content, Identity)
        ]
        return self.random.choice(found) if found else 0

    def endpoint_comes(self, identity: int = 0) -> list[Write]:
        """A pod; of a new identity now and then."""
        writes: list[Write] = []
        if not (nodes := self._nodes()):
            return []
        given, identity = identity, identity or self._identity()
        if not identity or (not given and self.random.random() < 0.2):
            if not (writes := self.identity_comes()):
                return []
            assert isinstance(writes[0][1], Identity)
            identity = writes[0][1].id
        node, number = self.random.choice(nodes), self.random.randint(1, IDS_PER_NODE)
        key = f"endpoints/{node}/{number}"
        if key in self.history.present or (address := self._address(node)) is None:
            return []
        endpoint = EndpointObject(
            node_index=node,
            id=number,
            identity=identity,
            addresses=address.pair,
            incarnation=self.history.revision + 1,
        )
        return [*writes, (key, EndpointRecord(endpoint))]

    def _address(self, node: int) -> Address | None:
        for number, address in enumerate(self.free):
            if self._may_use(node, address):
                return self.free.pop(number)
        return None

    def endpoint_goes(self) -> list[Write]:
        """A pod is gone."""
        if not (found := self._endpoints()):
            return []
        return [(_key(self.random.choice(found).object), None)]

    def endpoint_moves(self) -> list[Write]:
        """A pod's labels change."""
        found, identity = self._endpoints(), self._identity()
        return self._move(self.random.choice(found).object, identity) if found and identity else []

    def endpoint_again(self) -> list[Write]:
        """A write that changes nothing."""
        if not (found := self._endpoints()):
            return []
        endpoint = self.random.choice(found).object
        return self._move(endpoint, endpoint.identity)

    def _endpoint_is_replaced(self) -> None:
        """A pod gets another address under the number of the one before: another incarnation."""
        if not (found := self._endpoints()):
            return
        old = self.random.choice(found).object
        self.commit([(_key(old), None)])
        if self.random.random() < 0.3:
            self.write()
        if _key(old) in self.history.present or old.node_index not in self._nodes():
            return
        if not (identity := self._identity()) or (address := self._address(old.node_index)) is None:
            return
        endpoint = EndpointObject(
            node_index=old.node_index,
            id=old.id,
            identity=identity,
            addresses=address.pair,
            incarnation=self.history.revision + 1,
        )
        self.commit([(_key(old), EndpointRecord(endpoint))])

    def _move(self, endpoint: EndpointObject, identity: int) -> list[Write]:
        moved = EndpointObject(
            node_index=endpoint.node_index,
            id=endpoint.id,
            identity=identity,
            addresses=endpoint.addresses,
            incarnation=endpoint.incarnation,
        )
        present = self.history.present.get(_key(endpoint))
        stands = (
            present is not None
            and isinstance(present.content, EndpointRecord)
            and present.content.object.incarnation == endpoint.incarnation
            and f"identities/{identity}" in self.history.present
        )
        return [(_key(endpoint), EndpointRecord(moved))] if stands else []

    # --- identities and policies -----------------------------------------------------------------

    def identity_comes(self) -> list[Write]:
        """A set of labels that is new; its number was never used."""
        alive = [r for r in self.history.present.values() if isinstance(r.content, Identity)]
        if len(alive) >= IDENTITIES_AT_MOST:
            return []
        number = self.next_identity
        self.next_identity += 1
        labels = {
            "app": f"a{self.random.randrange(APPS)}",
            "tier": f"t{self.random.randrange(TIERS)}",
        }
        ports: tuple[NamedPort, ...] = ()
        if self.random.random() < 0.3:
            ports = (NamedPort("http", Protocol.TCP, self.random.choice((80, 8080))),)
        return [(f"identities/{number}", Identity(number, LabelSet.of("shop", {}, labels, ports)))]

    def identity_goes(self) -> list[Write]:
        """A set of labels that nobody has any more."""
        used = {record.object.identity for record in self._endpoints()}
        for record in self.history.present.values():
            if isinstance(record.content, Identity) and record.content.id not in used:
                return [(record.key, None)]
        return []

    def _policy_key(self) -> tuple[str, Content | None]:
        key = f"policies/shop/p{self.random.randrange(POLICIES)}"
        record = self.history.present.get(key)
        return key, None if record is None else record.content

    def policy(self) -> list[Write]:
        """A policy comes, changes or goes."""
        key, before = self._policy_key()
        goes = before is not None and self.random.random() < 0.45
        return [(key, None if goes else self._new_policy(key))]

    def _selector(self) -> LabelSelector:
        if self.random.random() < 0.4:
            return LabelSelector.of({"tier": f"t{self.random.randrange(TIERS)}"})
        return LabelSelector.of({"app": f"a{self.random.randrange(APPS)}"})

    def _new_policy(self, key: str, peers: int | None = None) -> NetworkPolicy:
        count = self.random.choice((0, 1, 1, 2)) if peers is None else peers
        named = tuple(PolicyPeer(pod_selector=self._selector()) for _ in range(count))
        ports: tuple[PolicyPort, ...] = ()
        if self.random.random() < 0.3:
            ports = (PolicyPort(port="http"),)
        rule = PolicyRule(peers=named, ports=ports)
        egress = self.random.random() < 0.4
        return NetworkPolicy(
            namespace="shop",
            name=key.rpartition("/")[2],
            pod_selector=self._selector(),
            applies_to_ingress=True,
            applies_to_egress=egress,
            ingress=(rule,),
            egress=(rule,) if egress else (),
        )

    # --- nodes, blocks, pools --------------------------------------------------------------------

    def block(self) -> list[Write]:
        """A block comes, goes or gets another owner."""
        number = self.random.randrange(3)
        key = f"blocks/{number}"
        if not (nodes := self._nodes()) or (
            key in self.history.present and self.random.random() < 0.4
        ):
            return [(key, None)] if key in self.history.present else []
        prefix = Prefix(bytes((10, 244, 0, 16 * number)), 28)
        return [(key, BlockObject(prefix=prefix, node_index=self.random.choice(nodes)))]

    def pool(self) -> list[Write]:
        """A pool comes, changes or goes."""
        if "pools/main" in self.history.present and self.random.random() < 0.3:
            return [("pools/main", None)]
        prefix = Prefix(bytes((10, 244, 0, 0)), 16)
        percent = self.random.choice((25, 50))
        pool = PoolObject(name="main", prefix=prefix, block_length=28, min_free_percent=percent)
        return [("pools/main", pool)]

    def node_comes(self, name: str, uid: str) -> int:
        """A node is registered; its number, which was never used."""
        index = self.next_node
        self.next_node += 1
        addresses = AddressPair(ipv4=bytes((198, 19, 0, index % 256)))
        node = NodeObject(index=index, name=name, addresses=addresses)
        self.commit([(f"nodes/{name}", NodeRecord(node, uid))])
        return index

    def node_goes(self, name: str) -> None:
        """A node is deleted, with its endpoints and blocks, all at once or one by one."""
        index = self.history.nodes[name].object.index
        gone: list[Write] = [
            (record.key, None)
            for record in self.history.present.values()
            if (
                isinstance(record.content, EndpointRecord)
                and record.content.object.node_index == index
            )
            or (isinstance(record.content, BlockObject) and record.content.node_index == index)
        ]
        fence: list[Write] = [(f"fences/{name}", None)] if index in self.history.fences else []
        if self.random.random() < 0.5:
            for write in gone:
                self.commit([write])
            gone = []
        self.commit([*gone, (f"nodes/{name}", None), *fence])

    def fence(self, name: str) -> None:
        """A node is fenced."""
        record = self.history.nodes[name]
        fence = Fence(
            node=name,
            node_index=record.object.index,
            node_uid=record.uid,
            joining=False,
            created=self.history.revision + 1,
        )
        self.commit([(f"fences/{name}", fence)])

    def unfence(self, name: str) -> None:
        """A fence goes."""
        self.commit([(f"fences/{name}", None)])


def _key(endpoint: EndpointObject) -> str:
    return f"endpoints/{endpoint.node_index}/{endpoint.id}"
