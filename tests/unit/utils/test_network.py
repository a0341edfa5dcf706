"""Addresses of this machine."""

from __future__ import annotations

import sys

import pytest

from proxystore_hpc.utils.network import LOOPBACK_NBYTES, loopback_tag


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says what is asked for here")
def test_a_loopback_interface_is_told_from_others(tmp_path, monkeypatch):
    tag = loopback_tag()
    assert len(tag) == LOOPBACK_NBYTES
    assert loopback_tag() == tag
    other = tmp_path / "boot_id"
    other.write_text("another boot\n")
    monkeypatch.setattr("proxystore_hpc.utils.network._BOOT_ID", other)
    assert loopback_tag() not in (tag, b"")
    monkeypatch.undo()
    monkeypatch.setattr("proxystore_hpc.utils.network._NAMESPACE", other)
    assert loopback_tag() not in (tag, b"")
    monkeypatch.setattr("proxystore_hpc.utils.network._NAMESPACE", tmp_path / "none")
    assert loopback_tag() == b""
