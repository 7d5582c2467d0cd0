"""ICE servers as configured, and the two files with secrets."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnb_server.ice import (
    CREDENTIAL_LIFETIME_MAX_S,
    IceConfigError,
    IceSources,
    SharedSecretTurn,
    StaticIce,
    parse_ice_server,
)
from p2pnb_server.keyfiles import NotPrivateError, load_hub_key, read_secret, write_kernel_file

SECRET = b"0123456789abcdef0123456789abcdef"


def test_no_server_is_named_unless_configured():
    assert IceSources([StaticIce()]).grant("0" * 32, 0.0).servers == ()


@pytest.mark.parametrize(
    "entry",
    [
        {"urls": "stun:stun.example.org"},
        {"urls": ["stun:192.0.2.1:3478", "stuns:[2001:db8::1]:5349"]},
        {"urls": ["turn:turn.example.org:3478?transport=tcp"], "username": "u", "credential": "c"},
        {"urls": "turns:turn.example.org", "username": "u", "credential": "c"},
    ],
)
def test_usual_entries_are_taken(entry):
    server = parse_ice_server(entry)
    assert server.urls == ([entry["urls"]] if isinstance(entry["urls"], str) else entry["urls"])


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"urls": []},
        {"urls": [1]},
        {"urls": "http://example.org"},
        {"urls": "turn:turn.example.org"},
        {"urls": "stun:a b"},
        {"urls": "stun:example.org\nturn:x"},
        {"urls": "stun:example.org", "url": "x"},
        {"urls": "turn:example.org?transport=sctp", "username": "u", "credential": "c"},
        {"urls": "turn:example.org", "username": 1, "credential": "c"},
    ],
)
def test_entries_that_no_browser_takes_are_refused(entry):
    with pytest.raises(IceConfigError):
        parse_ice_server(entry)


@given(url=st.text(max_size=40))
def test_no_text_makes_the_check_of_a_url_fail_differently(url):
    with contextlib.suppress(IceConfigError):
        assert parse_ice_server({"urls": url}).urls == [url]


def test_turn_credentials_are_what_coturn_computes_and_expire_within_the_hour():
    turn = SharedSecretTurn(["turn:turn.example.org"], SECRET)
    grant = turn.grant("ab" * 16, 1_800_000_000.0)
    (server,) = grant.servers
    expiry, _, label = server.username.partition(":")
    assert int(expiry) - 1_800_000_000 == grant.expires_in <= CREDENTIAL_LIFETIME_MAX_S == 3600
    assert label == "abababab"
    expected = hmac.new(SECRET, server.username.encode(), hashlib.sha1).digest()
    assert base64.b64decode(server.credential) == expected


@pytest.mark.parametrize(
    ("urls", "secret", "lifetime"),
    [([], SECRET, 3600), (["stun:x"], SECRET, 3600), (["turn:x"], b"short", 3600), (["turn:x"], SECRET, 3601)],
)
def test_wrong_turn_settings_are_refused(urls, secret, lifetime):
    with pytest.raises(IceConfigError):
        SharedSecretTurn(urls, secret, lifetime)


def test_the_earliest_expiry_counts_and_too_many_entries_are_refused():
    turn = [SharedSecretTurn(["turn:x.example"], SECRET, lifetime) for lifetime in (3600, 600)]
    assert IceSources([StaticIce(), *turn]).grant("0" * 32, 0.0).expires_in == 600
    with pytest.raises(IceConfigError, match="fit"):
        IceSources([StaticIce([parse_ice_server({"urls": "stun:stun.example.org"})] * 200)])


# ── files ───────────────────────────────────────────────────────────────────────────────────────────
def mode(path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_the_hub_key_is_private_and_survives(tmp_path):
    folder = tmp_path / "data" / "p2pnb"
    key, warning = load_hub_key(folder)
    assert (len(key), warning) == (32, "")
    assert (mode(folder), mode(folder / "hub-key")) == (0o700, 0o600)
    assert load_hub_key(folder) == (key, "")
    assert [path.name for path in folder.iterdir()] == ["hub-key"]


def test_a_folder_that_was_open_is_closed(tmp_path):
    folder = tmp_path / "p2pnb"
    folder.mkdir(mode=0o777)
    load_hub_key(folder)
    assert mode(folder) == 0o700


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o666])
def test_a_key_that_others_could_read_is_replaced(tmp_path, bits):
    key, _ = load_hub_key(tmp_path)
    (tmp_path / "hub-key").chmod(bits)
    new, warning = load_hub_key(tmp_path)
    assert new != key
    assert "replaced" in warning
    assert key.hex() not in warning
    assert mode(tmp_path / "hub-key") == 0o600


@pytest.mark.parametrize("content", [b"", b"xyz", b"00" * 31, b"0" * 100_000])
def test_a_damaged_key_is_replaced(tmp_path, content):
    load_hub_key(tmp_path)
    (tmp_path / "hub-key").write_bytes(content)
    key, warning = load_hub_key(tmp_path)
    assert len(key) == 32
    assert warning
    assert load_hub_key(tmp_path) == (key, "")


def test_a_planted_link_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("00" * 32)
    elsewhere.chmod(0o600)
    folder = tmp_path / "p2pnb"
    folder.mkdir()
    (folder / "hub-key").symlink_to(elsewhere)
    key, warning = load_hub_key(folder)
    assert key != bytes(32)
    assert warning
    assert elsewhere.read_text() == "00" * 32


def test_without_a_place_for_the_key_it_stays_in_memory(tmp_path):
    (tmp_path / "p2pnb").write_text("a file where the folder should be")
    key, warning = load_hub_key(tmp_path / "p2pnb")
    assert len(key) == 32
    assert "not outlive" in warning


def test_the_kernel_file_is_private_and_new(tmp_path):
    path = tmp_path / "p2pnb-1.json"
    victim = tmp_path / "victim"
    victim.write_text("keep")
    path.symlink_to(victim)
    write_kernel_file(path, {"secret": "s"})
    assert mode(path) == 0o600
    assert not path.is_symlink()
    assert json.loads(path.read_text()) == {"secret": "s"}
    assert victim.read_text() == "keep"


def test_a_secret_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "turn"
    path.write_text("secret\n")
    path.chmod(0o600)
    assert read_secret(path) == b"secret"
    path.chmod(0o644)
    with pytest.raises(NotPrivateError):
        read_secret(path)
