"""Key pairs of servers, their pins and their file."""

from __future__ import annotations

import os
import ssl
import stat
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc.exceptions import ConfigError, DoorUnavailableError
from proxystore_hpc.tcp import tls
from proxystore_hpc.tcp.identity import default_state, load_or_create, rotate


@pytest.fixture(scope="module")
def cryptography():
    """The package, which makes key pairs."""
    return pytest.importorskip("cryptography")


@pytest.mark.usefixtures("cryptography")
def test_a_key_pair_is_made_once_for_its_owner_only(tmp_path):
    path = tmp_path / "new" / "state.json"
    first = load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert load_or_create(path) == first
    assert os.listdir(path.parent) == ["state.json"]


@pytest.mark.usefixtures("cryptography")
def test_many_servers_at_once_agree_on_one(tmp_path):
    path = tmp_path / "state.json"
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(load_or_create(path))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({identity.pin for identity in found}) == 1


@pytest.mark.usefixtures("cryptography")
def test_the_pin_is_that_of_the_public_key(tmp_path):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    identity = load_or_create(tmp_path / "state.json")
    der = tls.certificate_in(identity.pems[0])
    key = x509.load_der_x509_certificate(der).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(spki)
    assert tls.public_key_of(der) == spki
    assert identity.pin == digest.finalize()[:16]


@pytest.mark.usefixtures("cryptography")
def test_rotation_keeps_the_last_ones(tmp_path):
    path = tmp_path / "state.json"
    pins = [load_or_create(path).pin]
    for _ in range(5):
        identity = rotate(path)
        pins.insert(0, identity.pin)
        assert load_or_create(path) == identity
    assert identity.pins == tuple(pins[:4])


@pytest.mark.usefixtures("cryptography")
def test_a_file_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "state.json"
    load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_create(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": 1, "identities": []}', '{"format": 9}']
)
def test_a_damaged_file_is_not_replaced(tmp_path, text):
    path = tmp_path / "state.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="no state file"):
        load_or_create(path)
    assert path.read_text() == text


@pytest.mark.usefixtures("cryptography")
def test_without_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    identity = load_or_create(path)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert load_or_create(path) == identity
    with pytest.raises(DoorUnavailableError, match=r"proxystore_hpc\[server\]"):
        load_or_create(tmp_path / "other.json")


def test_where_it_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state() == tmp_path / "proxystore_hpc" / "server.json"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory, cryptography):
    path = tmp_path_factory.mktemp("state") / "state.json"
    return tls.certificate_in(load_or_create(path).pems[0])


@given(garbage=st.binary(max_size=200))
def test_garbage_is_no_certificate(garbage):
    with pytest.raises(ValueError, match="DER"):
        tls.pin_of(garbage)


@given(data=st.data())
def test_damaged_certificates_have_another_pin_or_none(certificate, data):
    position = data.draw(st.integers(0, len(certificate) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = bytearray(certificate)
    damaged[position] ^= flip
    try:
        found = tls.public_key_of(bytes(damaged))
    except ValueError:
        return
    key = tls.public_key_of(certificate)
    begin = certificate.index(key)
    if begin <= position < begin + len(key):
        assert found != key


@given(length=st.integers(0, 600))
def test_cut_certificates_have_none_or_the_whole_key(certificate, length):
    try:
        found = tls.public_key_of(certificate[:length])
    except ValueError:
        return
    assert length >= len(certificate)
    assert found == tls.public_key_of(certificate)


def test_a_text_without_a_certificate():
    with pytest.raises(ValueError, match="PEM"):
        tls.certificate_in("no certificate")


@pytest.mark.usefixtures("cryptography")
def test_contexts_are_tls_1_3_only(tmp_path):
    context = tls.server_context(load_or_create(tmp_path / "state.json").pems)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    with pytest.raises(ConfigError, match="private key"):
        tls.authority_context(str(tmp_path / "none.pem"), str(tmp_path / "none.key"))
