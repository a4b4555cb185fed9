"""Other nodes of the same network."""

from deltaplane.runtime import rpc
from deltaplane.v1 import common_pb2, ipam_pb2, ipam_pb2_grpc, registry_pb2
from tests.netns.node import Node, until
from tests.netns.services_thread import Services

OTHER = "198.19.77.2"


def test_the_next_hop_of_a_new_block_is_asked_for_before_the_first_packet(
    node: Node, services: Services
) -> None:
    node.start_ready()
    other = registry_pb2.Node(
        name="n2",
        uid="uid-n2",
        boot_id="b",
        addresses=common_pb2.AddressPair(ipv4=bytes(map(int, OTHER.split(".")))),
    )
    services.registry(lambda stub: stub.RegisterNode(registry_pb2.RegisterNodeRequest(node=other)))

    async def claim() -> None:
        async with rpc.channel(services.target("ipam")) as channel:
            request = ipam_pb2.ClaimBlocksRequest(
                node="n2",
                node_uid="uid-n2",
                claims=[ipam_pb2.BlockClaim(pool="pods4", request_id="1")],
            )
            answer = await ipam_pb2_grpc.IpamStub(channel).ClaimBlocks(request)
            assert answer.results[0].HasField("block")

    services.run(claim())

    until(lambda: OTHER in node.ip("-4", "neigh", "show", "dev", "uplink"), "it is being resolved")
    assert f"via {OTHER}" in node.ip("-4", "route", "show", "proto", "217")
