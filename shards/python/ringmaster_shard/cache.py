"""The objects of one kind that this shard was told of, the newest version of each.

Never asks the API server, and never gives out what somebody else may change: who reads an object copies it.
"""

from __future__ import annotations

from .naming import Key, Object, key_of, version_of


class Cache:
    """Belongs to one event loop. As large as the shard's share of the kind."""

    def __init__(self) -> None:
        self._objects: dict[Key, Object] = {}

    def get(self, key: Key) -> Object | None:
        return self._objects.get(key)

    def keys(self) -> list[Key]:
        return list(self._objects)

    def __len__(self) -> int:
        return len(self._objects)

    def put(self, obj: Object) -> bool:
        """Whether it is newer than what is there. Another object of the name is newer by its version too: versions of
        one kind rise together."""
        key = key_of(obj)
        there = self._objects.get(key)
        if there is not None and version_of(there) >= version_of(obj):
            return False
        self._objects[key] = obj
        return True

    def drop(self, obj: Object) -> bool:
        """An object that is deleted, or left the selector: its version is that of this change. Whether it was there;
        what came back since stays."""
        key = key_of(obj)
        there = self._objects.get(key)
        if there is None or version_of(there) > version_of(obj):
            return False
        del self._objects[key]
        return True

    def forget(self, key: Key, version: int) -> bool:
        """An object that a list of the API server didn't have, unless it has changed since that version."""
        there = self._objects.get(key)
        if there is None or version_of(there) != version:
            return False
        del self._objects[key]
        return True
