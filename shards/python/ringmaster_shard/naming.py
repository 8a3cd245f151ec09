"""Who a shard is, by what labels it knows its objects, and where the objects of a kind are.

Never holds behaviour: what differs between dialects is a field here.
"""

from __future__ import annotations

import pathlib
import re
import socket
from dataclasses import dataclass
from typing import Any

# The namespace of a pod, as every container sees it.
NAMESPACE_FILE = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# Of a label's value, and so of a ring's and a shard's name.
MAX_NAME = 63
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
LEASE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

# An object as the API server's JSON has it.
Object = dict[str, Any]
# Namespace (empty when cluster-scoped) and name.
Key = tuple[str, str]


@dataclass(frozen=True)
class Dialect:
    """The names that a sharder and its shards agree on."""

    lease_ring: str
    """The label of a shard's Lease that names its ring."""
    shard_label: str
    """What precedes a ring's name in the key of the label that names an object's shard."""
    drain_label: str
    """What precedes a ring's name in the key of the label that asks an object's shard to let it go."""


RINGMASTER = Dialect("ringmaster.dev/ring", "ring.ringmaster.dev/", "drain.ring.ringmaster.dev/")
CONTROLLER_SHARDING = Dialect(
    "alpha.sharding.timebertt.dev/controllerring",
    "shard.alpha.sharding.timebertt.dev/",
    "drain.alpha.sharding.timebertt.dev/",
)
DIALECTS = {"ringmaster": RINGMASTER, "controller-sharding": CONTROLLER_SHARDING}


@dataclass(frozen=True)
class Identity:
    """A shard of a ring. ValueError names the field that is wrong and what it may be."""

    ring: str
    name: str
    """Also its Lease's name and holder, and the value of its objects' label."""
    namespace: str
    """Of its Lease."""
    dialect: Dialect = RINGMASTER

    def __post_init__(self) -> None:
        for field, value in (("ring", self.ring), ("name", self.name)):
            if len(value) > MAX_NAME or not LABEL_VALUE.fullmatch(value):
                raise ValueError(
                    f"{field}: {value!r} is no label value: at most {MAX_NAME} letters, digits, '-', '_' and '.', "
                    "the first and the last a letter or a digit"
                )
        if not LEASE_NAME.fullmatch(self.name):
            raise ValueError(
                f"name: {self.name!r} can't name a Lease: lower-case letters, digits, '-' and '.', "
                "each part's first and last a letter or a digit"
            )
        if not self.namespace:
            raise ValueError("namespace: it is empty; name the namespace of the Lease")

    @classmethod
    def of_this_process(
        cls, ring: str, name: str | None = None, namespace: str | None = None, dialect: Dialect = RINGMASTER
    ) -> Identity:
        """With the host's name and the pod's namespace, where none is given. ValueError as the constructor's."""
        if namespace is None:
            try:
                namespace = NAMESPACE_FILE.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ValueError(
                    f"namespace: none is given, and there is no {NAMESPACE_FILE}, as in a pod; "
                    "give the namespace of the Lease"
                ) from error
        return cls(ring, socket.gethostname() if name is None else name, namespace, dialect)

    @property
    def shard_label(self) -> str:
        return self.dialect.shard_label + self.ring

    @property
    def drain_label(self) -> str:
        return self.dialect.drain_label + self.ring

    @property
    def labels(self) -> dict[str, str]:
        """What a child needs, so that this shard sees it as soon as it is made."""
        return {self.shard_label: self.name}

    @property
    def selector(self) -> str:
        """Of this shard's objects."""
        return f"{self.shard_label}={self.name}"


@dataclass(frozen=True)
class Kind:
    """A kind of objects. The core group is the empty string; `plural` is its name in paths."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Of one object, or of all in a namespace or in the cluster."""
        parts = [f"/apis/{self.group}" if self.group else "/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        return "/".join(parts + [self.plural] + ([name] if name else []))


LEASES = Kind("coordination.k8s.io", "v1", "leases", "Lease")


def key_of(obj: Object) -> Key:
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def labels_of(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def version_of(obj: Object) -> int:
    """Its resourceVersion: versions of one object can be compared."""
    return int(obj["metadata"]["resourceVersion"])


def controller_of(obj: Object, kind: Kind) -> Key | None:
    """The object of a kind that controls this one."""
    namespace = obj["metadata"].get("namespace", "") if kind.namespaced else ""
    for owner in obj["metadata"].get("ownerReferences") or []:
        group = owner["apiVersion"].rpartition("/")[0]
        if owner.get("controller") and owner["kind"] == kind.kind and group == kind.group:
            return namespace, owner["name"]
    return None
