"""An API server's objects in memory, for tests: versions, optimistic locks, label selectors, watches.

Not a model of Kubernetes: no validation, no defaults, no garbage collection.
"""

from __future__ import annotations

import asyncio
import copy
import threading
import uuid
from collections.abc import Callable
from typing import Any

from ringmaster_shard.errors import Failure, Unreachable
from ringmaster_shard.naming import Object, labels_of, version_of

Change = tuple[str, Object, Object | None]  # ADDED, MODIFIED or DELETED; the object; what it was


class Store:
    """Any thread's. Its `call` is what the shard and the keeper need of `api.Api`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.version = 0
        self.objects: dict[str, Object] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.watchers: set[asyncio.Queue[tuple[str, Change] | None]] = set()
        self.history: list[tuple[str, Change]] = []
        self.closed = False
        # Called before a request is done; may raise, which refuses it.
        self.before: Callable[[str, str], None] = lambda method, path: None
        # The answers of these methods get lost after the write is done.
        self.lose: set[str] = set()

    async def close(self) -> None:
        self.closed = True

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
        await asyncio.sleep(0)
        self.requests.append((method, path, params or {}))
        self.before(method, path)
        with self.lock:
            answer = copy.deepcopy(self.do(method, path, params or {}, copy.deepcopy(body)))
        if method in self.lose:
            raise Unreachable(f"{method} {path}: the answer is lost")
        return answer

    def do(self, method: str, path: str, params: dict[str, str], body: Object | None) -> Any:
        if method == "GET" and path in self.objects:
            return self.objects[path]
        if method == "GET" and path.rsplit("/", 1)[-1] in ("secrets", "configmaps"):
            items = [self.objects[at] for at in sorted(self.objects) if of_kind(at, path)]
            chosen = [item for item in items if matches(item, params.get("labelSelector"))]
            return {"metadata": {"resourceVersion": str(self.version)}, "items": chosen}
        if method == "POST":
            assert body is not None
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                raise Failure(409, "AlreadyExists", f"{path} already exists")
            body["metadata"]["uid"] = str(uuid.uuid4())
            return self.set(path, body)
        there = self.objects.get(path)
        if there is None:
            raise Failure(404, "NotFound", f"{path} not found")
        if method == "DELETE":
            return self.remove(path)
        assert body is not None
        version = body["metadata"].get("resourceVersion")
        if version not in (None, there["metadata"]["resourceVersion"]):
            raise Failure(409, "Conflict", f"{path} has been modified")
        return self.set(path, merge(there, body) if method == "PATCH" else body)

    def set(self, path: str, obj: Object) -> Object:
        """As anybody's write."""
        with self.lock:
            self.version += 1
            before = self.objects.get(path)
            obj = copy.deepcopy(obj)
            obj["metadata"]["resourceVersion"] = str(self.version)
            obj["metadata"].setdefault("uid", str(uuid.uuid4()))
            self.objects[path] = obj
            self.tell(path, ("MODIFIED" if before else "ADDED", obj, before))
            return obj

    def patch(self, path: str, patch: Object) -> Object:
        with self.lock:
            return self.set(path, merge(self.objects[path], patch))

    def remove(self, path: str) -> Object:
        with self.lock:
            self.version += 1
            obj = copy.deepcopy(self.objects.pop(path))
            before = copy.deepcopy(obj)
            obj["metadata"]["resourceVersion"] = str(self.version)
            self.tell(path, ("DELETED", obj, before))
            return obj

    def tell(self, path: str, change: Change) -> None:
        self.history.append((path, change))
        for watcher in self.watchers:
            watcher.put_nowait((path, change))


def of_kind(path: str, kind: str) -> bool:
    parts = path.split("/")
    return path.startswith(kind + "/") or "/".join(parts[:-4] + parts[-2:-1]) == kind


def event(change: Change, selector: str | None) -> tuple[str, Object] | None:
    """What a watch with a selector shows of a change."""
    kind, obj, before = change
    now, was = kind != "DELETED" and matches(obj, selector), before is not None and matches(before, selector)
    if not now and not was:
        return None
    return ("MODIFIED" if now and was else "ADDED" if now else "DELETED"), obj


def matches(obj: Object, selector: str | None) -> bool:
    if not selector:
        return True
    label, _, value = selector.partition("=")
    return labels_of(obj).get(label) == value


def merge(there: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(there) if isinstance(there, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def since(history: list[tuple[str, Change]], version: int) -> list[tuple[str, Change]]:
    return [(path, change) for path, change in history if version_of(change[1]) > version]
