import socket
import struct

from bench.echo import checksum, is_reply, request


def test_a_message_with_its_checksum_sums_to_zero() -> None:
    assert checksum(request(socket.AF_INET, 77, 5)) == 0
    assert checksum(b"\x01") == 0xFEFF


def test_only_the_reply_to_our_own_request_counts() -> None:
    reply = struct.pack(">BBHHH", 0, 0, 0, 77, 5)
    assert is_reply(socket.AF_INET, bytes(20) + reply, 77)
    assert not is_reply(socket.AF_INET, bytes(20) + reply, 78)
    assert not is_reply(socket.AF_INET, bytes(20) + request(socket.AF_INET, 77, 5), 77)
    assert not is_reply(socket.AF_INET, bytes(24), 77)
    assert is_reply(socket.AF_INET6, struct.pack(">BBHHH", 129, 0, 0, 77, 5), 77)
