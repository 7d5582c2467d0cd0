"""The hub as an extension of a Jupyter server: routes, settings, and what happens at start and stop.

Routes under ``<base_url>p2pnb/``; no room id ever stands in a URL, since servers and proxies log those:

    health           GET   public          says that p2pnb is here
    ws               GET   public          the WebSocket of p2pnb.protocol.hub
    api/rooms        POST  user or kernel  makes a room
    api/rooms/close  POST  user or kernel  closes one
    api/status       GET   user or kernel  numbers

*User* is the Jupyter user, by token, or by cookie and XSRF token. *Kernel* is a kernel of this server, by the
secret in its kernel file. Every handler lists its methods in ACCESS; a method that is not listed is refused
before anything else, and a test walks all routes.

The WebSocket takes any Origin. That is safe because nothing there rests on a cookie: who is logged in is never
looked at, so a foreign page gains what a stranger with the same room id has, no more. It is needed because
guest pages are sandboxed (``Origin: null``). The Host check, which turns away DNS rebinding, holds on all routes.

A server without authentication hosts no rooms unless `P2PApp.allow_without_auth` says so: an invite would
lead every guest to a server on which anybody can run code.
"""

from __future__ import annotations

import contextlib
import enum
import hmac
import ipaddress
import os
import secrets
from asyncio import Future
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from http.client import responses
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import msgspec
from jupyter_core.paths import jupyter_data_dir, jupyter_runtime_dir
from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.extension.application import ExtensionApp
from jupyter_server.serverapp import ServerApp
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError
from tornado.websocket import WebSocketClosedError, WebSocketHandler
from traitlets import Bool, Dict, Float, Int, List, TraitError, Unicode, default, validate

from p2pnb.protocol.hub import (
    KERNEL_SECRET_HEADER,
    MAX_PAYLOAD_BYTES,
    PROTOCOL_VERSION,
    CloseCode,
    Error,
    ErrorCode,
    Restarting,
    encode_message,
)
from p2pnb_server.ice import (
    CREDENTIAL_LIFETIME_MAX_S,
    IceSource,
    IceSources,
    SharedSecretTurn,
    StaticIce,
    parse_ice_server,
)
from p2pnb_server.keyfiles import (
    SERVER_FILE_VARIABLE,
    load_hub_key,
    read_secret,
    remove_file,
    write_kernel_file,
)
from p2pnb_server.limits import Rate, RouterLimits
from p2pnb_server.router import RefusedError, Router
from p2pnb_server.switchboard import QUEUE_BYTES, QUEUE_TOTAL_BYTES, Link, Switchboard

__all__ = ["Access", "P2PApp"]

_BODY_BYTES_MAX: Final = 1024
_OPEN_SERVER: Final = Error(
    ErrorCode.OPEN_SERVER,
    "This Jupyter server runs without token and password: whoever reaches it can run code on it, so it hosts no "
    "rooms. Start it with a token (don't set IdentityProvider.token to ''), or, if only people you trust can reach "
    "it, with --P2PApp.allow_without_auth=True.",
)
_HTTP_STATUS: Final = {ErrorCode.OPEN_SERVER: 403, ErrorCode.HUB_FULL: 503, ErrorCode.ROOM_NOT_FOUND: 404}
# How to reach a server that listens on all addresses.
_CONNECTABLE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}  # noqa: S104


class Access(enum.Enum):
    """Who may use a method of a route."""

    PUBLIC = "public"
    USER_OR_KERNEL = "user or kernel"


_INVITE_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>Invite to a p2pnb room</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 34rem; margin: 12vh auto; padding: 0 1.25rem }
h1 { font-size: 1.4rem }
pre { padding: .75rem 1rem; border: 1px solid; border-radius: 6px; overflow-x: auto; opacity: .85 }
</style>
<h1>You are invited to a room in a notebook</h1>
<p>In a Jupyter notebook with p2pnb, join with the whole address of this page, the part after # included:</p>
<pre>import p2pnb
room = p2pnb.join("…the address of this page…", name="…your name…")
room</pre>
<p>Whoever has this address can join. The words after # are the secret; this server has not seen them.</p>
</html>
"""


class _Handler(JupyterHandler):
    """What all routes share: their table of access, the kernel's secret, headers, short errors."""

    ACCESS: ClassVar[Mapping[str, Access]] = {}
    auth_resource = "p2pnb"

    def initialize(self, app: P2PApp) -> None:
        self.app = app

    async def prepare(self) -> None:  # type: ignore[override]
        await super().prepare()  # Host, user, XSRF
        access = self.ACCESS.get(self.request.method or "")
        if access is None:
            raise HTTPError(405)
        if access is Access.USER_OR_KERNEL and not self._is_own_kernel():
            await self._require_user()

    def _is_own_kernel(self) -> bool:
        given = self.request.headers.get(KERNEL_SECRET_HEADER, "")
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.app.kernel_secret.encode())

    async def _require_user(self) -> None:
        user = self.current_user
        action = "read" if self.request.method == "GET" else "write"
        if not user or not await ensure_async(self.authorizer.is_authorized(self, user, action, self.auth_resource)):
            raise HTTPError(403, "Only the user of this Jupyter server may do this.")

    def check_xsrf_cookie(self) -> None:
        # A browser can't be made to send the kernel's secret, so there is nothing to forge.
        if not self._is_own_kernel():
            super().check_xsrf_cookie()

    def get_login_url(self) -> str:
        raise HTTPError(403)  # nobody logs in at these routes: no redirect to a page

    @property
    def content_security_policy(self) -> str:
        return "default-src 'none'; frame-ancestors 'none'"

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("X-Content-Type-Options", "nosniff")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        known = isinstance(error, HTTPError) and error.log_message
        self._answer({"message": error.log_message if known else responses.get(status_code, "Error")})  # type: ignore[union-attr]

    def _answer(self, content: object, status: int | None = None) -> None:
        if status is not None:
            self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(content))

    def _answer_refused(self, error: Error) -> None:
        if error.retry_after:
            self.set_header("Retry-After", str(int(error.retry_after) + 1))
        content = {"code": error.code, "message": error.message, "retry_after": error.retry_after}
        self._answer(content, _HTTP_STATUS.get(error.code, 403))


class HealthHandler(_Handler):
    """Says that p2pnb is here, and nothing about this server."""

    ACCESS: ClassVar[Mapping[str, Access]] = {"GET": Access.PUBLIC}

    @allow_unauthenticated
    def get(self) -> None:
        self._answer({"p2pnb": True, "protocol": PROTOCOL_VERSION})


class InviteHandler(_Handler):
    """What an invite's link opens in a browser: how to use it in a notebook.

    The same static page for every room, existing or not, without a script: the words behind the # never reach
    this server, and nothing on the page reads them.
    """

    ACCESS: ClassVar[Mapping[str, Access]] = {"GET": Access.PUBLIC}

    @property
    def content_security_policy(self) -> str:
        return "sandbox; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"

    @allow_unauthenticated
    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=UTF-8")
        self.finish(_INVITE_PAGE)


class RoomsHandler(_Handler):
    """Makes rooms."""

    ACCESS: ClassVar[Mapping[str, Access]] = {"POST": Access.USER_OR_KERNEL}

    @allow_unauthenticated  # by Jupyter's reckoning: a kernel is no user; see ACCESS
    def post(self) -> None:
        if self.app.refusal is not None:
            self._answer_refused(self.app.refusal)
            return
        try:
            created = self.app.switchboard.create_room()
        except RefusedError as refusal:
            self._answer_refused(refusal.error)
        else:
            self._answer(created, 201)


class _CloseRequest(msgspec.Struct):
    room: str


class CloseRoomHandler(_Handler):
    """Closes a room: body ``{"room": id}``. A POST, since DELETE would put the id into the URL."""

    ACCESS: ClassVar[Mapping[str, Access]] = {"POST": Access.USER_OR_KERNEL}

    @allow_unauthenticated  # see ACCESS
    def post(self) -> None:
        if len(self.request.body) > _BODY_BYTES_MAX:
            raise HTTPError(413)
        try:
            request = msgspec.json.decode(self.request.body, type=_CloseRequest)
        except msgspec.MsgspecError:
            raise HTTPError(400, 'The body has to be {"room": "<room id>"}.') from None
        if self.app.switchboard.close_room(request.room):
            self.set_status(204)
            self.finish()
        else:
            self._answer_refused(Error(ErrorCode.ROOM_NOT_FOUND, "There is no such room here."))


class StatusHandler(_Handler):
    """Numbers of this hub, without any id."""

    ACCESS: ClassVar[Mapping[str, Access]] = {"GET": Access.USER_OR_KERNEL}

    @allow_unauthenticated  # see ACCESS
    def get(self) -> None:
        app = self.app
        self._answer(
            {
                **msgspec.to_builtins(app.switchboard.router.stats()),
                "queued_bytes": app.switchboard.queued_bytes,
                "hosting": app.refusal is None,
                "refusal": app.refusal.message if app.refusal else "",
                "public_url": app.public_url,
                "allow_remote_access": bool(self.settings.get("allow_remote_access", False)),
            }
        )


class RoomSocketHandler(WebSocketHandler, _Handler):
    """The WebSocket of one peer: a `switchboard.Socket`."""

    ACCESS: ClassVar[Mapping[str, Access]] = {"GET": Access.PUBLIC}

    _link: Link | None = None

    @allow_unauthenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:
        await super().get(*args, **kwargs)

    def check_origin(self, origin_to_satisfy_tornado: str = "") -> bool:
        return True  # deliberately, see above

    def get_compression_options(self) -> None:
        return None  # ciphertext doesn't shrink, and there are no deflate bombs without inflate

    @property
    def max_message_size(self) -> int:
        return self.app.switchboard.message_bytes

    @property
    def ping_interval(self) -> float:
        return 0.0  # the switchboard pings

    def open(self, *args: str, **kwargs: str) -> None:
        self.set_nodelay(True)
        if self.app.refusal is not None:
            self.send_text(encode_message(self.app.refusal))
            self.close(CloseCode.REFUSED, self.app.refusal.code)
        elif self.app.switchboard.closed:
            self.send_text(encode_message(Restarting()))
            self.close(CloseCode.RESTARTING, "restarting")
        else:
            self._link = self.app.switchboard.attach(self, self.request.remote_ip or "")

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        if self._link is None:
            return None
        if isinstance(message, bytes):
            return self._link.receive_binary(message)
        self._link.receive_text(message)
        return None

    def on_pong(self, data: bytes) -> None:
        if self._link is not None:
            self._link.heard()

    def on_close(self) -> None:
        if self._link is not None:
            self._link.lost()

    # ── switchboard.Socket; `close` is tornado's ────────────────────────────────────────────────────
    def send_text(self, text: str) -> Future[None] | None:
        try:
            return self.write_message(text)
        except WebSocketClosedError:
            return None

    def send_binary(self, head: bytes, body: memoryview) -> Future[None] | None:
        try:
            return self.write_message(b"".join((head, body)), binary=True)
        except WebSocketClosedError:
            return None

    def ping(self, data: str | bytes = b"") -> None:
        with contextlib.suppress(WebSocketClosedError, StreamClosedError):
            super().ping(data)


class P2PApp(ExtensionApp):
    """Hosts p2pnb rooms on this Jupyter server."""

    name = "p2pnb"
    extension_url = "/p2pnb/health"
    load_other_extensions = True

    public_url = Unicode(
        help="""The address of this Jupyter server as guests reach it, with its base_url, such as
        'https://hub.example.org/user/ada/'. It goes into invites. Empty: the address that the notebook's browser
        sees, or what JupyterHub says."""
    ).tag(config=True)

    allow_without_auth = Bool(
        False,
        help="""Host rooms although this server has no authentication. Everybody who gets an invite can then run
        code on this server: only for servers that nobody but trusted people can reach.""",
    ).tag(config=True)

    ice_servers = List(
        Dict(),
        help="""STUN and TURN servers for peers, as in RTCConfiguration.iceServers:
        [{'urls': ['turn:turn.example.org:3478'], 'username': '...', 'credential': '...'}]. The default is none, so
        that no address goes to a third party; peers on different networks then often stay on the relay.""",
    ).tag(config=True)

    turn_urls = List(
        Unicode(),
        help="""URLs of TURN servers that take time-limited credentials made from a shared secret
        (coturn: use-auth-secret). Needs turn_secret_file.""",
    ).tag(config=True)

    turn_secret_file = Unicode(
        help="""Path of a file, readable by nobody else (0600), that holds the shared secret of turn_urls
        (coturn: static-auth-secret)."""
    ).tag(config=True)

    turn_credential_lifetime = Float(
        CREDENTIAL_LIFETIME_MAX_S,
        help="""Seconds for which credentials for turn_urls are good: 60 to 3600.""",
    ).tag(config=True)

    max_rooms = Int(RouterLimits().rooms, help="""Rooms at the same time.""").tag(config=True)

    max_peers_per_room = Int(
        RouterLimits().peers_per_room, help="""Peers in one room: 2 to 100. Returning ones may exceed it."""
    ).tag(config=True)

    max_connections = Int(RouterLimits().connections, help="""WebSockets of peers at the same time.""").tag(config=True)

    max_payload_bytes = Int(
        MAX_PAYLOAD_BYTES,
        help="""Largest message that is relayed, in bytes: 65536 to 262144.""",
    ).tag(config=True)

    max_bytes_per_second = Int(
        0, help="""What one peer may send through the relay, in bytes per second, from 65536 up; 0 sets no rate."""
    ).tag(config=True)

    joins_per_address_burst = Float(
        RouterLimits().address_joins.burst,
        help="""Newcomers from one address at once. Behind a proxy all have its address unless
        ServerApp.trust_xheaders is set. Joins that fail count twenty times; members that return don't count.""",
    ).tag(config=True)

    joins_per_address_per_second = Float(
        RouterLimits().address_joins.per_second, help="""Newcomers from one address per second, after the burst."""
    ).tag(config=True)

    queue_bytes = Int(
        QUEUE_BYTES,
        help="""Bytes that are held for a destination that reads slowly before its senders are slowed down.""",
    ).tag(config=True)

    queue_total_bytes = Int(QUEUE_TOTAL_BYTES, help="""Bytes that are held for all destinations together.""").tag(
        config=True
    )

    @default("public_url")
    def _default_public_url(self) -> str:
        found = urlsplit(os.environ.get("JUPYTERHUB_PUBLIC_URL", ""))
        if found.scheme not in {"http", "https"} or not found.netloc or self.serverapp is None:
            return ""
        return f"{found.scheme}://{found.netloc}{self.serverapp.base_url}"

    @validate("public_url")
    def _validate_public_url(self, proposal: Mapping[str, Any]) -> str:
        url = str(proposal["value"])
        parts = urlsplit(url)
        if not url:
            return url
        plain = not (parts.query or parts.fragment or parts.username or parts.password)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not plain:
            raise TraitError("P2PApp.public_url is a plain http or https address, like 'https://example.org/user/ada/'")
        return url if url.endswith("/") else url + "/"

    @property
    def refusal(self) -> Error | None:
        """Why this server hosts no rooms; None if it does."""
        assert self.serverapp is not None
        if self.serverapp.identity_provider.auth_enabled or self.allow_without_auth:
            return None
        return _OPEN_SERVER

    def initialize_settings(self) -> None:
        """Build the hub; wrong settings end here, with a text that says which."""
        self.kernel_secret = secrets.token_urlsafe(32)
        self._kernel_file: Path | None = None
        limits = RouterLimits(
            rooms=self.max_rooms,
            peers_per_room=self.max_peers_per_room,
            connections=self.max_connections,
            payload_bytes=self.max_payload_bytes,
            bytes_per_second=self.max_bytes_per_second,
            address_joins=Rate(self.joins_per_address_burst, self.joins_per_address_per_second),
        )
        key, warning = load_hub_key(Path(jupyter_data_dir()) / "p2pnb")
        if warning:
            self.log.warning("p2pnb: %s", warning)
        router = Router(
            key,
            secrets.token_bytes,
            limits=limits,
            ice=self._ice_source(),
            public_url=self.public_url,
            queue_bytes=self.queue_bytes,
        )
        self.switchboard = Switchboard(
            router, queue_bytes=self.queue_bytes, queue_total_bytes=self.queue_total_bytes, on_use=self._note_use
        )

    def initialize_handlers(self) -> None:
        """Add the routes; the server puts its base_url before them."""
        routes: list[tuple[str, type[_Handler]]] = [
            (r"p2pnb/health", HealthHandler),
            (r"p2pnb/ws", RoomSocketHandler),
            (r"p2pnb/join/\w+", InviteHandler),
            (r"p2pnb/api/rooms", RoomsHandler),
            (r"p2pnb/api/rooms/close", CloseRoomHandler),
            (r"p2pnb/api/status", StatusHandler),
        ]
        self.handlers.extend((pattern, handler, {"app": self}) for pattern, handler in routes)

    async def _start_jupyter_server_extension(self, serverapp: ServerApp) -> None:
        self.switchboard.start()
        self._tell_kernels(serverapp)
        self._warn_of_host_check(serverapp)
        if self.refusal is not None:
            self.log.warning("p2pnb: %s", self.refusal.message)

    async def stop_extension(self) -> None:
        """Send everybody away for a moment and leave nothing behind."""
        if self._kernel_file is not None:
            remove_file(self._kernel_file)
            if os.environ.get(SERVER_FILE_VARIABLE) == str(self._kernel_file):
                del os.environ[SERVER_FILE_VARIABLE]
            self._kernel_file = None
        await self.switchboard.close()

    def _ice_source(self) -> IceSource:
        sources: list[IceSource] = [StaticIce([parse_ice_server(entry) for entry in self.ice_servers])]
        if self.turn_urls:
            if not self.turn_secret_file:
                raise TraitError("P2PApp.turn_urls needs P2PApp.turn_secret_file")
            secret = read_secret(Path(self.turn_secret_file).expanduser())
            sources.append(SharedSecretTurn(self.turn_urls, secret, self.turn_credential_lifetime))
        return IceSources(sources)

    def _note_use(self) -> None:
        # Servers are culled by the newest *_last_activity; relayed chat and files are activity, pings aren't.
        assert self.serverapp is not None
        self.serverapp.web_app.settings["p2pnb_last_activity"] = datetime.now(UTC)

    def _tell_kernels(self, serverapp: ServerApp) -> None:
        path = Path(jupyter_runtime_dir()) / f"p2pnb-{os.getpid()}.json"
        content: dict[str, object] = {
            "url": _local_url(serverapp),
            "secret": self.kernel_secret,
            "pid": os.getpid(),
            "public_url": self.public_url,
        }
        if serverapp.sock:
            content["sock"] = serverapp.sock
        if serverapp.certfile:
            content["certfile"] = serverapp.certfile
        try:
            write_kernel_file(path, content)
        except OSError as error:
            self.log.warning("p2pnb: kernels won't find this server by themselves: %s", error)
            return
        self._kernel_file = path
        os.environ[SERVER_FILE_VARIABLE] = str(path)

    def _warn_of_host_check(self, serverapp: ServerApp) -> None:
        host = urlsplit(self.public_url).hostname
        if not host or serverapp.allow_remote_access or host in serverapp.local_hostnames or _is_loopback(host):
            return
        self.log.warning(
            "p2pnb: invites lead to %s, but this server turns requests for that name away. Start it with "
            "--ServerApp.local_hostnames=%s or --ServerApp.allow_remote_access=True.",
            host,
            host,
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _local_url(serverapp: ServerApp) -> str:
    """Return the address of this server from this machine, ending in "/"; with `sock`, over that socket."""
    if serverapp.sock:
        return f"http://localhost{serverapp.base_url}"
    ip = _CONNECTABLE.get(serverapp.ip, serverapp.ip)
    host = f"[{ip}]" if ":" in ip else ip
    scheme = "https" if serverapp.certfile else "http"
    return f"{scheme}://{host}:{serverapp.port}{serverapp.base_url}"
