"""The outside section of keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc.exceptions import ConfigError, InvalidArgumentError, InvalidKeyError
from proxystore_hpc.tcp.endpoints import (
    MAP_VARIABLE,
    TcpEndpoint,
    is_loopback,
    of_user,
    pack,
    parse_address,
    rewrite,
    unpack,
)

hosts = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=255)
ports = st.integers(1, 65535)
endpoints = st.builds(
    TcpEndpoint,
    hosts,
    ports,
    st.none() | st.binary(min_size=16, max_size=16),
    gateway=st.booleans(),
    loopback=st.just(b"") | st.binary(min_size=8, max_size=8),
) | st.builds(TcpEndpoint, hosts, ports, authority=st.just(True), gateway=st.booleans())


@given(st.lists(endpoints, max_size=8))
def test_what_was_packed_is_unpacked(these):
    assert unpack(pack(these)) == tuple(these)


@given(st.binary(max_size=600))
def test_any_bytes_are_endpoints_or_an_error(garbage):
    try:
        found = unpack(garbage)
    except InvalidKeyError:
        return
    assert pack(found) == garbage


@given(st.lists(endpoints, min_size=1, max_size=3), st.data())
def test_cut_sections_are_refused_or_hold_the_first_ones(these, data):
    packed = pack(these)
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    try:
        found = unpack(cut)
    except InvalidKeyError:
        return
    assert found == tuple(these)[: len(found)]
    assert len(found) < len(these)


def test_layout():
    plain = TcpEndpoint("login1", 8443)
    pinned = TcpEndpoint("n", 1, bytes(range(16)))
    verified = TcpEndpoint("n", 1, authority=True)
    assert pack([plain]) == b"\x00\xfb\x20\x06login1"
    assert pack([pinned]) == b"\x01\x01\x00\x01n" + bytes(range(16))
    assert pack([verified]) == b"\x02\x01\x00\x01n"
    assert pack([TcpEndpoint("n", 1, gateway=True)]) == b"\x04\x01\x00\x01n"
    assert pack([TcpEndpoint("n", 1, loopback=b"8 bytes!")]) == b"\x08\x01\x00\x01n8 bytes!"


def test_more_than_a_key_carries_is_refused():
    one = TcpEndpoint("n", 1)
    with pytest.raises(InvalidArgumentError, match="8 endpoints"):
        pack([one] * 9)
    with pytest.raises(InvalidKeyError):
        unpack(pack([one] * 8) + pack([one]))


@pytest.mark.parametrize(
    "arguments",
    [
        ("n", 0),
        ("n", 65536),
        ("", 1),
        ("n" * 256, 1),
        ("ä", 1),
        ("n\n", 1),
        ("n", 1, b"short"),
        ("n", 1, bytes(16), True),
    ],
)
def test_what_is_no_endpoint(arguments):
    with pytest.raises(InvalidArgumentError):
        TcpEndpoint(*arguments)


def test_addresses():
    assert parse_address("login1:8443") == ("login1", 8443)
    assert parse_address("[fe80::1]:0") == ("fe80::1", 0)
    for text in ("login1", ":80", "a:b", "fe80::1:80", "a:65536", "a:-1", "[]:1", "a:²"):
        with pytest.raises(ConfigError):
            parse_address(text)
    assert str(TcpEndpoint("::1", 80)) == "[::1]:80"


def test_what_stays_on_this_machine():
    for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert is_loopback(host)
    for host in ("127.example.org", "localhost.example.org", "10.0.0.1", "::2", "node1"):
        assert not is_loopback(host)


def test_rewriting():
    these = (TcpEndpoint("login1", 8443, bytes(16)), TcpEndpoint("login2", 8443, authority=True))
    assert rewrite(these, {}) == these
    mapped = rewrite(these, {MAP_VARIABLE: "login2:8443=localhost:9000, other:1=localhost:2,"})
    assert [(e.host, e.port) for e in mapped] == [("login1", 8443), ("localhost", 9000)]
    assert mapped[1].name == "login2"
    assert [e.mapped for e in mapped] == [False, True]
    assert pack(rewrite(mapped, {MAP_VARIABLE: "localhost:9000=login2:8443"})) == pack(these)
    for text in ("login1:8443", "login1=localhost:1", "a:1=b"):
        with pytest.raises(ConfigError):
            rewrite(these, {MAP_VARIABLE: text})


def test_the_user_of_an_owner():
    plain, pinned = TcpEndpoint("localhost", 1), TcpEndpoint("localhost", 1, bytes(16))
    far = TcpEndpoint("node1", 1)
    assert [e.user for e in of_user([plain, pinned, far], 1000)] == [1000, None, None]


def test_the_environment_is_obeyed(monkeypatch):
    monkeypatch.setenv(MAP_VARIABLE, "login1:8443=localhost:9000")
    assert rewrite([TcpEndpoint("login1", 8443)])[0].port == 9000
