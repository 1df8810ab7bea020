"""Who gives tokens for OAUTHBEARER: an issuer that signs them, and an endpoint that hands them out.

    issuer = Issuer()
    async with KafkaSandbox(security=Security(issuer=issuer)) as kafka, TokenEndpoint(issuer) as endpoint:
        ...  # kafka.bootstraps["SASL_PLAINTEXT"], endpoint.url, client "monitor" with the secret "s3cret"

Tokens are JWTs (RFC 7519) signed with HMAC-SHA-256, whose key the sandbox's brokers are given as a key set (RFC 7517):
they check signature, times, issuer and audience as they would with those of an identity provider. The endpoint answers
client credentials as RFC 6749, section 4.4, has it, and can be told to misbehave. It listens on the loopback only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

_KEY_ID = "sandbox"


@dataclass(frozen=True)
class Issuer:
    """Signs tokens.

    Attributes:
        name: What tokens say of who issued them, and brokers expect.
        audience: Whom tokens are for, as brokers expect it.
        key: The key, at least 32 bytes.
    """

    name: str = "sandbox"
    audience: str = "kafka"
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def token(self, subject: str, seconds: float = 300.0, **claims: Any) -> str:
        """Return a token for a subject that is good for so many seconds at least; claims given win over its own."""
        at = time.time()
        times = {"iat": int(at), "exp": math.ceil(at + seconds)}
        said = {"iss": self.name, "aud": self.audience, "sub": subject, **times, **claims}
        head = {"alg": "HS256", "typ": "JWT", "kid": _KEY_ID}
        signed = f"{_base64(json.dumps(head).encode())}.{_base64(json.dumps(said).encode())}"
        return f"{signed}.{_base64(hmac.digest(self.key, signed.encode(), hashlib.sha256))}"

    def key_set(self) -> str:
        """Return the key as a JSON web key set."""
        key = {"kty": "oct", "kid": _KEY_ID, "alg": "HS256", "use": "sig", "k": _base64(self.key)}
        return json.dumps({"keys": [key]})


class TokenEndpoint:
    """Hands out tokens, inside ``async with`` or between ``start`` and ``stop``.

    Attributes:
        clients: Secrets by client id; a token's subject is the client's id.
        seconds: How long a token is good for.
        asked: How often it was asked.
        forms: What the requests said, newest last.
        answer: Set it to answer something else: called with the request, returns a response.
    """

    def __init__(
        self,
        issuer: Issuer,
        *,
        clients: Mapping[str, str] | None = None,
        seconds: float = 300.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.issuer = issuer
        self.clients = dict(clients or {"monitor": "s3cret"})
        self.seconds = seconds
        self.asked = 0
        self.forms: list[dict[str, str]] = []
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.give
        self.url = ""
        self._tls = tls
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen on a free port."""
        application = web.Application()
        application.router.add_post("/token", self._asked)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"{'http' if self._tls is None else 'https'}://127.0.0.1:{port}/token"

    async def stop(self) -> None:
        """Stop listening; does nothing if it does not run."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def give(self, request: web.Request) -> web.Response:
        """Answer client credentials with a token, anything else with an error of RFC 6749, section 5.2."""
        form = await request.post()
        scheme, _, pair = request.headers.get("Authorization", "").partition(" ")
        try:
            client, _, secret = base64.b64decode(pair, validate=True).decode().partition(":")
        except ValueError:
            return web.json_response({"error": "invalid_request"}, status=400)
        if scheme.lower() != "basic":
            return web.json_response({"error": "invalid_request"}, status=400)
        if form.get("grant_type") != "client_credentials":
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        known = self.clients.get(client)
        if known is None or not hmac.compare_digest(known.encode(), secret.encode()):
            wrong = {"error": "invalid_client", "error_description": "unknown client, or a wrong secret"}
            return web.json_response(wrong, status=401)
        token = self.issuer.token(client, self.seconds)
        return web.json_response({"access_token": token, "token_type": "Bearer", "expires_in": self.seconds})

    async def _asked(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        return await self.answer(request)


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
