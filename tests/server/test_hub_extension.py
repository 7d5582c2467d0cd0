"""The extension in a real Jupyter server, met over real sockets, under an odd base_url."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from pathlib import Path

import pytest
import tornado.websocket
from jupyter_server.auth.decorator import allow_unauthenticated
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.httputil import HTTPHeaders
from traitlets import TraitError

from p2pnb.protocol.hub import (
    KERNEL_SECRET_HEADER,
    MAX_PAYLOAD_BYTES,
    CloseCode,
    Error,
    ErrorCode,
    Join,
    Joined,
    Restarting,
    Resume,
    Welcome,
    decode_hub_message,
    encode_message,
)
from p2pnb_server.jupyter import Access, P2PApp, _Handler

# What a stranger may do. A new public route has to be added here on purpose.
PUBLIC = {("p2pnb/health", "GET"), ("p2pnb/ws", "GET"), ("p2pnb/join/some7room", "GET")}
METHODS = ("GET", "HEAD", "POST", "DELETE", "PATCH", "PUT", "OPTIONS")


@pytest.fixture
def p2p_config() -> dict:
    return {}


@pytest.fixture
def jp_server_config(p2p_config):
    return {
        "ServerApp": {
            "jpserver_extensions": {"p2pnb_server": True},
            "allow_unauthenticated_access": False,
            "reraise_server_extension_failures": True,
        },
        "P2PApp": p2p_config,
    }


@pytest.fixture
def app(jp_serverapp, http_server_client, jp_asyncio_loop, monkeypatch) -> P2PApp:
    monkeypatch.delenv("P2PNB_SERVER_FILE", raising=False)
    app = jp_serverapp.extension_manager.extension_points["p2pnb"].app
    jp_asyncio_loop.run_until_complete(jp_serverapp.extension_manager.start_all_extensions())
    return app


@pytest.fixture
def fetch(app, http_server_client, jp_base_url):
    """Send a request as a stranger; answers errors as responses."""

    async def fetch(path, method="GET", **options):
        body = "" if method in {"POST", "PUT", "PATCH"} else None
        options.setdefault("body", body)
        return await http_server_client.fetch(
            jp_base_url + path,
            method=method,
            raise_error=False,
            follow_redirects=False,
            allow_nonstandard_methods=True,
            **options,
        )

    return fetch


@pytest.fixture
def kernel_header(app) -> dict[str, str]:
    return {KERNEL_SECRET_HEADER: app.kernel_secret}


@pytest.fixture
def create_room(fetch, kernel_header):
    async def create_room() -> dict:
        response = await fetch("p2pnb/api/rooms", "POST", headers=kernel_header)
        assert response.code == 201, response.body
        return json.loads(response.body)

    return create_room


class Client:
    """A peer's side of the WebSocket."""

    def __init__(self, connection) -> None:
        self.connection = connection
        self.id = b""

    async def read(self):
        """Return the next message: decoded text, bytes, or None at the end."""
        message = await asyncio.wait_for(self.connection.read_message(), 10)
        return decode_hub_message(message) if isinstance(message, str) else message

    async def join(self, room: str, **fields):
        await self.connection.write_message(encode_message(Join(room, **fields)))
        answer = await self.read()
        if isinstance(answer, Welcome):
            self.id = bytes.fromhex(answer.id)
        return answer

    async def end(self) -> int | None:
        """Read to the end and return the close code."""
        while await self.read() is not None:
            pass
        return self.connection.close_code


@pytest.fixture
def connect(app, jp_http_port, jp_base_url, jp_asyncio_loop):
    clients: list[Client] = []

    async def connect(headers=None, **options) -> Client:
        url = f"ws://127.0.0.1:{jp_http_port}{jp_base_url}p2pnb/ws"
        client = Client(await tornado.websocket.websocket_connect(HTTPRequest(url, headers=headers), **options))
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.connection.close()


# ── authorisation ───────────────────────────────────────────────────────────────────────────────────
def our_routes(app, base_url) -> dict[str, type[_Handler]]:
    """Return every rule of the running server that p2pnb has a hand in, by its path below base_url."""
    found: dict[str, type[_Handler]] = {}
    rules = [
        rule for group in app.serverapp.web_app.default_router.rules for rule in getattr(group.target, "rules", [])
    ]
    assert len(rules) > 20
    for rule in rules:
        pattern = rule.matcher.regex.pattern
        if rule.target.__module__.startswith("p2pnb") or "p2pnb" in pattern:
            assert pattern.startswith(base_url)
            path = pattern.removeprefix(base_url).removesuffix("$")
            found[path.replace(r"\w+", "some7room")] = rule.target
    return found


async def test_every_method_of_every_route_has_the_access_it_states(app, fetch, jp_base_url):
    routes = our_routes(app, jp_base_url)
    assert len(routes) == 6
    public = set()
    for path, handler in routes.items():
        assert handler.ACCESS, f"{path} states no access"
        for method in METHODS:
            access = handler.ACCESS.get(method)
            response = await fetch(path, method)
            if response.code < 300 or (path == "p2pnb/ws" and response.code == 400):
                public.add((path, method))
                assert access is Access.PUBLIC
            else:
                assert response.code in {403, 405}, (path, method, response.code)
                assert access is not Access.PUBLIC
    assert public == PUBLIC


async def test_methods_open_to_strangers_for_jupyter_are_those_with_an_access_of_their_own(app, jp_base_url):
    for handler in our_routes(app, jp_base_url).values():
        for method in METHODS:
            open_to_strangers = getattr(getattr(handler, method.lower()), "__allow_unauthenticated", False)
            assert open_to_strangers == (method in handler.ACCESS)


async def test_without_the_strict_setting_the_same_routes_are_closed(app, fetch, jp_base_url):
    app.serverapp.web_app.settings["allow_unauthenticated_access"] = True
    for path, handler in our_routes(app, jp_base_url).items():
        for method in METHODS:
            if handler.ACCESS.get(method) is not Access.PUBLIC:
                assert (await fetch(path, method)).code in {403, 405}


async def test_a_handler_that_states_no_access_is_closed_to_everybody(app, fetch, kernel_header, jp_base_url):
    class Forgotten(_Handler):
        @allow_unauthenticated
        def get(self) -> None:
            self.finish("open")

    app.serverapp.web_app.add_handlers(".*$", [(f"{jp_base_url}p2pnb/forgotten", Forgotten, {"app": app})])
    assert (await fetch("p2pnb/forgotten", headers=kernel_header)).code == 405


@pytest.mark.parametrize("secret", ["", "x", "ä", "0" * 43])
async def test_a_wrong_kernel_secret_opens_nothing(fetch, secret):
    headers = HTTPHeaders({KERNEL_SECRET_HEADER: secret})
    assert (await fetch("p2pnb/api/rooms", "POST", headers=headers)).code == 403
    assert (await fetch("p2pnb/api/status", headers=headers)).code == 403


async def test_the_kernel_secret_opens_nothing_of_jupyter(fetch, kernel_header):
    assert (await fetch("api/contents", headers=kernel_header)).code in {302, 403}


async def test_a_user_creates_rooms_with_the_token(fetch, jp_auth_header):
    response = await fetch("p2pnb/api/rooms", "POST", headers=jp_auth_header)
    assert response.code == 201
    assert set(json.loads(response.body)) == {"room", "owner", "ticket", "public_url"}


async def test_a_cookie_needs_an_xsrf_token(app, fetch, jp_serverapp, jp_base_url, http_server_client):
    token = jp_serverapp.identity_provider.token
    login = await http_server_client.fetch(
        f"{jp_base_url}api/me?token={token}", raise_error=False, follow_redirects=False
    )
    cookies = [c.split(";")[0] for c in login.headers.get_list("Set-Cookie")]
    assert cookies
    cookie = {"Cookie": "; ".join(cookies)}
    assert (await fetch("p2pnb/api/status", headers=cookie)).code == 200, "the cookie is good"
    refused = await fetch("p2pnb/api/rooms", "POST", headers=cookie)
    assert refused.code == 403
    assert b"_xsrf" in refused.body
    xsrf = await fetch("no/such/page", headers=cookie)  # any page of Jupyter's gives one
    both = cookies + [c.split(";")[0] for c in xsrf.headers.get_list("Set-Cookie") if c.startswith("_xsrf")]
    value = dict(c.split("=", 1) for c in both)["_xsrf"]
    headers = {"Cookie": "; ".join(both), "X-XSRFToken": value}
    assert (await fetch("p2pnb/api/rooms", "POST", headers=headers)).code == 201


async def test_a_user_whom_the_authorizer_refuses_creates_no_rooms(app, fetch, jp_auth_header, monkeypatch):
    asked = []

    def refuse(handler, user, action, resource):
        asked.append((action, resource))
        return False

    monkeypatch.setattr(app.serverapp.authorizer, "is_authorized", refuse)
    assert (await fetch("p2pnb/api/rooms", "POST", headers=jp_auth_header)).code == 403
    assert asked == [("write", "p2pnb")]


async def test_reading_changes_nothing(app, fetch, kernel_header):
    before = app.switchboard.router.stats()
    for path in ("health", "api/status", "api/rooms", "api/rooms/close", "ws"):
        await fetch(f"p2pnb/{path}", headers=kernel_header)
    assert app.switchboard.router.stats() == before


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8888", "localhost.evil.com", "192.0.2.7"])
async def test_a_foreign_host_is_turned_away_on_every_route(app, fetch, connect, kernel_header, jp_base_url, host):
    for path, handler in our_routes(app, jp_base_url).items():
        for method in handler.ACCESS:
            response = await fetch(path, method, headers={"Host": host, **kernel_header})
            assert response.code == 403, (path, method)
    with pytest.raises(HTTPClientError) as refused:
        await connect({"Host": host})
    assert refused.value.code == 403


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example", "http://localhost.evil.com"])
async def test_the_websocket_takes_any_origin_and_no_login_counts_there(create_room, connect, jp_auth_header, origin):
    headers = dict(jp_auth_header)
    if origin is not None:
        headers["Origin"] = origin
    room = await create_room()
    client = await connect(headers)
    assert isinstance(await client.join(room["room"]), Welcome)
    answer = await (await connect(headers)).join("abcdefgh")
    assert answer.code == ErrorCode.ROOM_NOT_FOUND, "the token is no way to a room"


async def test_answers_are_not_stored_framed_or_guessed(fetch):
    for path in ("p2pnb/health", "p2pnb/api/status"):
        headers = (await fetch(path)).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


async def test_errors_are_short_json(fetch):
    response = await fetch("p2pnb/api/rooms", "POST")
    assert response.headers["Content-Type"] == "application/json"
    assert set(json.loads(response.body)) == {"message"}
    assert len(response.body) < 200


# ── rooms ───────────────────────────────────────────────────────────────────────────────────────────
async def test_health_says_that_p2pnb_is_here_and_no_more(fetch):
    response = await fetch("p2pnb/health")
    assert json.loads(response.body) == {"p2pnb": True, "protocol": 1}


async def test_two_peers_meet_and_exchange_bytes(create_room, connect):
    room = await create_room()
    ada, ben = await connect(), await connect()
    assert (await ada.join(room["room"], owner=room["owner"])).peers == []
    welcome = await ben.join(room["room"])
    assert [(p.id, p.owner) for p in welcome.peers] == [(ada.id.hex(), True)]
    assert await ada.read() == Joined(ben.id.hex())
    payload = os.urandom(MAX_PAYLOAD_BYTES)
    await ada.connection.write_message(ben.id + payload, binary=True)
    assert await ben.read() == ada.id + payload
    await ben.connection.write_message(ada.id + b"", binary=True)
    assert await ada.read() == ben.id


async def test_two_rooms_are_isolated(create_room, connect):
    ada, ben = await connect(), await connect()
    await ada.join((await create_room())["room"])
    await ben.join((await create_room())["room"])
    await ada.connection.write_message(ben.id + b"secret", binary=True)
    assert (await ada.read()).code == ErrorCode.NO_PEER
    await ben.connection.write_message('{"type":"leave"}')
    assert await ben.read() is None, "nothing came before the end"


async def test_a_message_that_is_too_large_ends_the_connection(create_room, connect):
    ada = await connect()
    await ada.join((await create_room())["room"])
    await ada.connection.write_message(bytes(16 + MAX_PAYLOAD_BYTES + 1), binary=True)
    assert await ada.end() in {1009, None}, "None: the connection was cut"


@pytest.mark.parametrize("message", ["", "hello", '{"type":"leave"}', b"", b"x" * 100, '{"type":"join","room":7}'])
async def test_a_wrong_first_message_ends_the_connection(connect, message):
    client = await connect()
    await client.connection.write_message(message, binary=isinstance(message, bytes))
    assert (await client.read()).code == ErrorCode.BAD_MESSAGE
    assert await client.end() == CloseCode.BAD_MESSAGE


async def test_a_socket_that_says_nothing_is_closed(app, connect, monkeypatch):
    client = await connect()
    start = app.switchboard._clock()
    monkeypatch.setattr(app.switchboard, "_clock", lambda: start + 6)
    app.switchboard.tick()
    assert (await client.read()).code == ErrorCode.BAD_MESSAGE
    assert await client.end() == CloseCode.JOIN_TIMEOUT


async def test_a_second_socket_of_the_same_peer_replaces_the_first(create_room, connect):
    room = (await create_room())["room"]
    first, second = await connect(), await connect()
    welcome = await first.join(room)
    assert (await second.join(room, resume=Resume(welcome.id, welcome.secret))).id == welcome.id
    assert (await first.read()).code == ErrorCode.REPLACED
    assert await first.end() == CloseCode.REPLACED


async def test_no_compression_is_agreed_on(connect):
    client = await connect({"Sec-WebSocket-Extensions": "permessage-deflate"})
    assert "Sec-WebSocket-Extensions" not in client.connection.headers


async def test_a_room_is_closed_by_its_user(fetch, create_room, connect, kernel_header):
    room = (await create_room())["room"]
    client = await connect()
    await client.join(room)
    body = json.dumps({"room": room})
    assert (await fetch("p2pnb/api/rooms/close", "POST", body=body)).code == 403
    assert (await fetch("p2pnb/api/rooms/close", "POST", body=body, headers=kernel_header)).code == 204
    assert (await client.read()).code == ErrorCode.ROOM_NOT_FOUND
    assert await client.end() == CloseCode.ROOM_NOT_FOUND
    assert (await fetch("p2pnb/api/rooms/close", "POST", body=body, headers=kernel_header)).code == 404
    for bad in ("", "[]", '{"room": 1}', "x"):
        assert (await fetch("p2pnb/api/rooms/close", "POST", body=bad, headers=kernel_header)).code == 400
    assert (await fetch("p2pnb/api/rooms/close", "POST", body="x" * 2000, headers=kernel_header)).code == 413


async def test_status_holds_numbers_and_no_ids(fetch, create_room, connect, jp_auth_header):
    room = (await create_room())["room"]
    client = await connect()
    await client.join(room)
    response = await fetch("p2pnb/api/status", headers=jp_auth_header)
    status = json.loads(response.body)
    assert (status["rooms"], status["peers"], status["hosting"]) == (1, 1, True)
    assert room.encode() not in response.body
    assert client.id.hex().encode() not in response.body


@pytest.mark.parametrize("p2p_config", [{"max_rooms": 1}])
async def test_a_full_hub_says_so_and_when_to_try_again(fetch, create_room, kernel_header, p2p_config):
    await create_room()
    response = await fetch("p2pnb/api/rooms", "POST", headers=kernel_header)
    assert response.code == 503
    assert json.loads(response.body)["code"] == ErrorCode.HUB_FULL
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("p2p_config", [{"joins_per_address_burst": 50.0, "joins_per_address_per_second": 0.5}])
async def test_guessing_room_ids_from_one_address_is_stopped(create_room, connect, p2p_config):
    answers = [await (await connect()).join("abcdefgh") for _ in range(6)]
    assert answers[0].code == ErrorCode.ROOM_NOT_FOUND
    assert answers[-1].code == ErrorCode.TOO_MANY_JOINS
    client = await connect()
    await client.join("abcdefgh")
    assert await client.end() == CloseCode.TOO_MANY_JOINS


# ── a slow reader, over real sockets ────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("p2p_config", [{"queue_bytes": 2 * 1024 * 1024}])
async def test_a_reader_that_stops_makes_the_hub_stop_reading_and_hold_no_more(app, create_room, connect, p2p_config):
    room = (await create_room())["room"]
    ada, ben, cy = await connect(), await connect(), await connect()
    for client in (ada, ben, cy):
        await client.join(room)
    message = ben.id + bytes(MAX_PAYLOAD_BYTES)
    sent, highest = 0, 0  # ben never reads: his side's buffers fill, then the hub's queue

    async def send() -> None:
        nonlocal sent
        while True:
            await ada.connection.write_message(message, binary=True)
            sent += len(message)

    sending = asyncio.ensure_future(send())
    stalled_at, last = 0, -1
    while stalled_at < 5:
        await asyncio.sleep(0.05)
        highest = max(highest, app.switchboard.queued_bytes)
        stalled_at = stalled_at + 1 if sent == last else 0
        last = sent
    assert 1024 * 1024 < highest <= 2 * 1024 * 1024
    assert sent < 64 * 1024 * 1024, "the sender was slowed down by TCP"
    # Others in the room are not held up.
    await cy.connection.write_message(ada.id + b"hello", binary=True)
    while not isinstance(got := await ada.read(), bytes):
        pass
    assert got == cy.id + b"hello"
    sending.cancel()


# ── settings, start and stop ────────────────────────────────────────────────────────────────────────
class TestAnOpenServer:
    @pytest.fixture
    def jp_server_config(self, p2p_config):
        return {
            "ServerApp": {"jpserver_extensions": {"p2pnb_server": True}, "token": ""},
            "IdentityProvider": {"token": ""},
            "P2PApp": p2p_config,
        }

    async def test_hosts_no_rooms_and_says_what_to_do(self, app, fetch, connect, kernel_header):
        assert not app.serverapp.identity_provider.auth_enabled
        response = await fetch("p2pnb/api/rooms", "POST", headers=kernel_header)
        assert response.code == 403
        answer = json.loads(response.body)
        assert answer["code"] == ErrorCode.OPEN_SERVER
        assert "allow_without_auth" in answer["message"]
        client = await connect()
        assert (await client.read()).code == ErrorCode.OPEN_SERVER
        assert await client.end() == CloseCode.REFUSED

    @pytest.mark.parametrize("p2p_config", [{"allow_without_auth": True}])
    async def test_hosts_rooms_if_told_to(self, create_room, connect, p2p_config):
        assert isinstance(await (await connect()).join((await create_room())["room"]), Welcome)


def kernel_file() -> tuple[Path, dict]:
    path = Path(os.environ["P2PNB_SERVER_FILE"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path, json.loads(path.read_text())


def test_kernels_are_told_where_the_hub_is(app, jp_http_port, jp_base_url, jp_asyncio_loop):
    path, content = kernel_file()
    assert path.name == f"p2pnb-{os.getpid()}.json"
    assert content == {
        "url": f"http://localhost:{jp_http_port}{jp_base_url}",
        "secret": app.kernel_secret,
        "pid": os.getpid(),
        "public_url": "",
    }
    assert len(app.kernel_secret) >= 32
    jp_asyncio_loop.run_until_complete(app.stop_extension())
    assert not path.exists()
    assert "P2PNB_SERVER_FILE" not in os.environ


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({"ip": "0.0.0.0"}, "http://127.0.0.1:{port}"),
        ({"ip": ""}, "http://127.0.0.1:{port}"),
        ({"ip": "::"}, "http://[::1]:{port}"),
        ({"ip": "192.0.2.7"}, "http://192.0.2.7:{port}"),
        ({"certfile": "/etc/cert.pem"}, "https://localhost:{port}"),
        ({"sock": "/run/user/1/jupyter.sock"}, "http://localhost"),
    ],
)
def test_the_address_for_kernels_can_be_reached_from_this_machine(
    app, jp_http_port, jp_base_url, monkeypatch, settings, address
):
    for name, value in settings.items():
        monkeypatch.setattr(app.serverapp, name, value)
    app._tell_kernels(app.serverapp)
    _, content = kernel_file()
    assert content["url"] == address.format(port=jp_http_port) + jp_base_url
    assert content.get("sock", "") == settings.get("sock", "")
    assert content.get("certfile", "") == settings.get("certfile", "")
    monkeypatch.undo()


def test_a_runtime_folder_that_can_not_keep_a_secret_gets_none(app, monkeypatch, tmp_path):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "missing"))
    before = os.environ.pop("P2PNB_SERVER_FILE")
    app._tell_kernels(app.serverapp)
    assert "P2PNB_SERVER_FILE" not in os.environ
    os.environ["P2PNB_SERVER_FILE"] = before


async def test_stopping_sends_everybody_away_for_a_moment_and_the_room_survives_the_restart(
    app, create_room, connect, fetch, jp_serverapp
):
    room = (await create_room())["room"]
    clients = [await connect() for _ in range(3)]
    welcomes = [await client.join(room) for client in clients]
    await app.stop_extension()
    for client in clients:
        while not isinstance(await client.read(), Restarting):
            pass
        assert await client.end() == CloseCode.RESTARTING
    late = await connect()
    assert isinstance(await late.read(), Restarting)
    # The next process: everything is built anew, from the key on disk.
    app.initialize_settings()
    for welcome in welcomes:
        client = await connect()
        again = await client.join(room, ticket=welcome.ticket, resume=Resume(welcome.id, welcome.secret))
        assert again.id == welcome.id
    assert len(again.peers) == 2


async def test_use_of_a_room_counts_as_activity_of_the_server(app, create_room, connect):
    settings = app.serverapp.web_app.settings
    room = (await create_room())["room"]
    assert "p2pnb_last_activity" not in settings
    await (await connect()).join(room)
    app.switchboard.tick()
    first = settings["p2pnb_last_activity"]
    assert app.serverapp.web_app.last_activity() >= first
    app.switchboard.tick()
    assert settings["p2pnb_last_activity"] == first


@pytest.mark.parametrize(
    "p2p_config",
    [
        {
            "public_url": "https://hub.example/user/ada",
            "ice_servers": [{"urls": ["stun:stun.example.org"]}],
            "max_payload_bytes": 65536,
        }
    ],
)
async def test_settings_reach_the_peers(app, create_room, connect, p2p_config):
    room = await create_room()
    assert room["public_url"] == "https://hub.example/user/ada/"
    welcome = await (await connect()).join(room["room"])
    assert welcome.public_url == "https://hub.example/user/ada/"
    assert [s.urls for s in welcome.ice_servers] == [["stun:stun.example.org"]]
    assert welcome.limits.payload_bytes == 65536
    assert welcome.limits.queue_bytes == app.queue_bytes


async def test_by_default_no_third_party_is_named(create_room, connect):
    assert (await (await connect()).join((await create_room())["room"])).ice_servers == []


async def test_turn_credentials_are_made_from_a_private_file(app, tmp_path):
    secret = tmp_path / "turn-secret"
    secret.write_text("s" * 32)
    secret.chmod(0o600)
    app.turn_urls, app.turn_secret_file = ["turn:turn.example.org"], str(secret)
    (server,) = app._ice_source().grant("a" * 32, 0.0).servers
    assert server.username.startswith("3600:")
    secret.chmod(0o644)
    with pytest.raises(OSError, match="open to others"):
        app._ice_source()


@pytest.mark.parametrize(
    "url", ["hub.example", "ftp://hub.example/", "https://u:p@hub.example/", "https://h/?a=b", "x"]
)
async def test_a_public_url_that_is_no_address_is_refused(app, url):
    with pytest.raises(TraitError):
        app.public_url = url


async def test_the_address_that_jupyterhub_gives_is_used(app, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_PUBLIC_URL", "https://hub.example/")
    assert app._default_public_url() == f"https://hub.example{app.serverapp.base_url}"
    monkeypatch.setenv("JUPYTERHUB_PUBLIC_URL", "")
    assert app._default_public_url() == ""


async def test_an_invite_opened_in_a_browser_says_what_to_do_and_runs_nothing(fetch):
    pages = [await fetch(f"p2pnb/join/{room}", "GET") for room in ("7kq2m", "absent")]
    assert [page.code for page in pages] == [200, 200]
    assert pages[0].body == pages[1].body
    assert b"p2pnb.join(" in pages[0].body
    assert b"<script" not in pages[0].body
    policy = pages[0].headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert pages[0].headers["Referrer-Policy"] == "no-referrer"


async def test_logs_name_no_room_and_no_peer(app, fetch, create_room, connect, kernel_header, caplog):
    caplog.set_level(logging.DEBUG)
    room = await create_room()
    ada, ben = await connect(), await connect()
    for client in (ada, ben):
        await client.join(room["room"])
    await ada.connection.write_message(ben.id + b"needle-payload", binary=True)
    await ada.connection.write_message("broken needle-text")
    assert await ada.end() == CloseCode.BAD_MESSAGE
    await (await connect()).join("abcdefgh", ticket="needle-ticket")
    await fetch("p2pnb/api/rooms/close", "POST", body=json.dumps({"room": room["room"]}), headers=kernel_header)
    await app.stop_extension()
    needles = [room["room"], room["ticket"], room["owner"], ada.id.hex(), ben.id.hex(), "needle", app.kernel_secret]
    assert "p2pnb/api/rooms" in caplog.text, "the server's own log is in view"
    assert [needle for needle in needles if needle in caplog.text] == []


def test_the_error_of_an_open_server_is_a_hub_message(app):
    app.serverapp.identity_provider.token = ""
    assert isinstance(app.refusal, Error)
    assert len(app.refusal.code.encode()) <= 123
