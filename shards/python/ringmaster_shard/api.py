"""Requests to the API server, by aiohttp and with kopf's ways to log in.

Never retries what was answered, but for one request after new credentials; never asks for the right to work: who writes
does. Belongs to the event loop that it was made in.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import kopf

from .errors import Failure, Unreachable
from .naming import Object
from .right import now

# A service account's token is replaced in its file about hourly.
LOGIN_FRESH_S = 60.0
CONNECT_S = 5.0
MAX_CONNECTIONS = 100
# Of the text of an answer that isn't a Status.
MAX_TEXT = 300

Login = Callable[[], kopf.ConnectionInfo]


def login() -> kopf.ConnectionInfo:
    """By $KUBECONFIG if it is set, otherwise as a pod. `kopf.LoginError` when neither is possible."""
    settings = kopf.OperatorSettings()
    info = None
    if os.environ.get("KUBECONFIG"):
        info = kopf.login_with_kubeconfig(settings=settings)
    if info is None:
        info = kopf.login_with_service_account(settings=settings)
    if info is None:
        raise kopf.LoginError("no way to log in: set KUBECONFIG, or run as a pod with a service account")
    return info


class Api:
    """What this process asks of the API server. `close` it in the loop that made it."""

    def __init__(self, login: Login = login) -> None:
        self._login = login
        self._info: kopf.ConnectionInfo | None = None
        self._since = 0.0
        self._ssl: ssl.SSLContext | bool = True
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS))

    async def close(self) -> None:
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        timeout: float,
        params: dict[str, str] | None = None,
        body: Object | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """The answer's JSON. `Failure` if it was refused; `Unreachable` if there was no answer within `timeout` seconds
        or none that can be read: what a write did is then unknown."""
        try:
            async with asyncio.timeout(timeout):
                answer = await self._call(method, path, params, body, headers, fresh=False)
                if answer[0] == 401:
                    answer = await self._call(method, path, params, body, headers, fresh=True)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unreachable(f"{method} {path}: {type(error).__name__}: {error}") from error
        status, value = answer
        if status >= 400:
            told = value if isinstance(value, dict) else {}
            message = told.get("message") or str(value)[:MAX_TEXT]
            raise Failure(status, told.get("reason") or "Unknown", f"{method} {path}: {status}: {message}")
        return value

    async def _call(
        self,
        method: str,
        path: str,
        params: dict[str, str] | None,
        body: Object | None,
        headers: dict[str, str] | None,
        fresh: bool,
    ) -> tuple[int, Any]:
        info = self._credentials(fresh)
        async with self._session.request(
            method,
            info.server.rstrip("/") + path,
            params=params,
            json=body,
            headers={"Accept": "application/json", **info.as_http_headers(), **(headers or {})},
            ssl=self._ssl,
            proxy=info.proxy_url,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        ) as response:
            if response.status >= 400 and response.content_type != "application/json":
                return response.status, await response.text(errors="replace")
            return response.status, await response.json()

    def _credentials(self, fresh: bool) -> kopf.ConnectionInfo:
        if self._info is None or fresh or now() >= self._since + LOGIN_FRESH_S:
            try:
                info = self._login()
            except (kopf.LoginError, OSError, KeyError) as error:
                if self._info is None:
                    raise Unreachable(f"no credentials: {error}") from error
                info = self._info
            if info != self._info:
                self._ssl = info.as_ssl_context() if info.server.startswith("https:") else True
            self._info, self._since = info, now()
        return self._info
