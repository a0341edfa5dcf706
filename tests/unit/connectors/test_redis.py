from __future__ import annotations

import datetime
import ipaddress

import pytest
from support.redis_server import free_port, redis_server

from proxystore_hpc.connectors.redis import _CHUNKED, _MARK, RedisConnector, RedisKey
from proxystore_hpc.exceptions import ConfigError, ConnectorError, MissingLibraryError


@pytest.fixture
def connect(redis_socket):
    made = []

    def connect(**options):
        made.append(RedisConnector(unix_socket_path=redis_socket, timeout=20, **options))
        return made[-1]

    yield connect
    for connector in made:
        connector.close(clear=True)


def without_retries(connector):
    """What fails at the first try fails at the tenth, seconds later."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    connector._redis_client.set_retry(Retry(NoBackoff(), 0))
    return connector


def names(connector):
    return set(connector._redis_client.keys("*"))


@pytest.mark.parametrize("size", [9, 10, 11, 20, 21, 1005])
def test_long_values_lie_in_pieces(connect, size):
    connector = connect(chunk_size=10)
    before = names(connector)
    data = bytes(number % 251 for number in range(size))
    key = connector.put(data)
    pieces = len(names(connector) - before)
    assert pieces == (1 if size <= 10 else 1 + -(-size // 10))
    assert bytes(connector.get(key)) == data
    assert [bytes(found) for found in connector.get_batch([key, key])] == [data, data]
    connector.evict(key)
    assert names(connector) == before
    assert connector.get(key) is None


def test_readers_need_not_know_the_length_of_pieces(connect):
    key = connect(chunk_size=7).put(b"0123456789" * 5)
    assert bytes(connect().get(key)) == b"0123456789" * 5


@pytest.mark.parametrize("data", [_MARK, _MARK + b"x", _CHUNKED.pack(_MARK, bytes(16), 3, 30)])
def test_values_that_look_like_our_mark_are_values(connect, data):
    connector = connect()
    keys = [connector.put(data), *connector.put_batch([data, b"other"])]
    assert [bytes(found) for found in connector.get_batch(keys)] == [data, data, b"other"]


def test_a_missing_piece_is_a_missing_object(connect):
    connector = connect(chunk_size=10)
    key = connector.put(b"x" * 25)
    (second,) = connector._redis_client.keys(f"{key.redis_key}:*:1")
    connector._redis_client.delete(second)
    assert connector.get(key) is None


def test_a_put_that_fails_leaves_nothing(connect, monkeypatch):
    connector = connect(chunk_size=10)
    before = names(connector)
    import redis

    sets = connector._redis_client.set
    calls = iter(range(100))

    def fail_later(name, value):
        if next(calls) == 2:
            raise redis.ConnectionError("gone")
        return sets(name, value)

    monkeypatch.setattr(connector._redis_client, "set", fail_later)
    with pytest.raises(ConnectorError, match="gone") as caught:
        connector.put(b"x" * 45)
    assert isinstance(caught.value.key, RedisKey)
    assert names(connector) == before


def test_clear_deletes_only_what_this_connector_stored(connect):
    mine, other = connect(clear=True, chunk_size=10), connect()
    key = other.put(b"theirs")
    for _ in range(3):
        mine.put(b"mine" * 10)
    before = names(other)
    assert len(before) > 4
    mine.close()
    assert names(other) < before
    assert other.get(key) == b"theirs"
    assert not any(mine._names.mark.encode() in name for name in names(other))


def test_databases_are_apart(connect):
    key = connect(db=1).put(b"x")
    assert connect().get(key) is None
    assert connect(db=1).get(key) == b"x"


def test_a_server_that_is_not_there_is_an_error_that_names_it():
    pytest.importorskip("redis")
    connector = without_retries(RedisConnector("127.0.0.1", free_port(), timeout=5))
    with pytest.raises(ConnectorError, match=r"127\.0\.0\.1"):
        connector.put(b"x")
    connector.close(clear=False)


def test_arguments_are_checked():
    pytest.importorskip("redis")
    with pytest.raises(ConfigError, match="chunk_size"):
        RedisConnector(chunk_size=0)
    with pytest.raises(ConfigError, match="chunk_size"):
        RedisConnector(chunk_size=1 << 30)
    with pytest.raises(ConfigError, match="ssl"):
        RedisConnector(ssl=True, unix_socket_path="/tmp/none")
    with pytest.raises(ConfigError, match="NO_SUCH_PASSWORD"):
        RedisConnector(password_env="NO_SUCH_PASSWORD")


def test_without_the_library_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingLibraryError, match=r"proxystore_hpc\[redis\]") as caught:
        RedisConnector("localhost", 6379)
    assert caught.value.extra == "redis"


def test_passwords_and_users(tmp_path, monkeypatch):
    user = ("--user", "worker", "on", ">secret", "~*", "+@all")
    arguments = ("--requirepass", "open sesame", *user)
    with redis_server(tmp_path, *arguments) as path:
        with RedisConnector(unix_socket_path=path, password="open sesame") as connector:
            key = connector.put(b"x")
            assert "sesame" not in repr(connector)
            assert type(connector)(**connector.config()).get(key) == b"x"
        with RedisConnector(
            unix_socket_path=path, username="worker", password="secret"
        ) as connector:
            assert connector.get(key) == b"x"
        monkeypatch.setenv("REDIS_PASSWORD_FOR_TEST", "open sesame")
        with RedisConnector(
            unix_socket_path=path, password_env="REDIS_PASSWORD_FOR_TEST"
        ) as connector:
            assert connector.get(key) == b"x"
            assert "sesame" not in str(connector.config())
        with (
            RedisConnector(unix_socket_path=path, password="wrong") as connector,
            pytest.raises(ConnectorError, match=r"AuthenticationError"),
        ):
            connector.get(key)


def test_tls(tmp_path):
    certificate, private_key = make_certificate(tmp_path)
    port = free_port()
    arguments = [
        *("--tls-port", str(port), "--bind", "127.0.0.1", "--tls-auth-clients", "no"),
        *("--tls-cert-file", certificate, "--tls-key-file", private_key),
        *("--tls-ca-cert-file", certificate),
    ]
    with redis_server(tmp_path, *arguments):
        with RedisConnector("127.0.0.1", port, ssl=True, ssl_ca_certs=certificate) as connector:
            assert connector.get(connector.put(b"x" * 100_000)) == b"x" * 100_000
        with (
            without_retries(RedisConnector("127.0.0.1", port, ssl=True)) as connector,
            pytest.raises(ConnectorError, match="certificate"),
        ):
            connector.put(b"to a stranger")


def make_certificate(directory):
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return tuple(map(str, paths))


def test_a_value_that_is_replaced_leaves_no_pieces(connect):
    connector = connect(chunk_size=10)
    before = names(connector)
    key = connector.new_key()
    for data, entries in ((b"a" * 45, 6), (b"b" * 25, 4), (b"c", 1), (b"d" * 30, 4)):
        connector.set(key, data)
        assert bytes(connector.get(key)) == data
        assert len(names(connector) - before) == entries
    connector.evict(key)
    assert names(connector) == before
