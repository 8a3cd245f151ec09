"""What a shard does about its Lease, as pure functions: when it may have it, and what is written.

Never compares a time that a Lease tells with a clock of this machine: only how long it hasn't changed counts.
"""

from __future__ import annotations

import copy
import datetime
import math
from dataclasses import dataclass

from .naming import LEASES, Identity, Object

# What a renewal needs beside its retry period, as client-go has it.
JITTER = 1.2


@dataclass(frozen=True)
class Times:
    """Of a Lease, in seconds. ValueError names the field that is wrong and what it may be."""

    duration: float = 15.0
    """For how long others leave a silent shard its Lease. The Lease tells whole seconds: this, rounded up."""
    renew_deadline: float = 10.0
    """For how long this shard works on after it sent the last renewal that succeeded."""
    retry_period: float = 2.0
    """Between two renewals."""

    def __post_init__(self) -> None:
        if self.retry_period <= 0:
            raise ValueError(f"retry period: {self.retry_period} s; it must be above 0")
        if self.renew_deadline <= JITTER * self.retry_period:
            raise ValueError(
                f"renew deadline: {self.renew_deadline} s; it must be above {JITTER} times the retry period of "
                f"{self.retry_period} s"
            )
        if self.duration <= self.renew_deadline:
            raise ValueError(
                f"lease duration: {self.duration} s; it must be above the renew deadline of {self.renew_deadline} s"
            )


@dataclass(frozen=True)
class Seen:
    """What a Lease said, and when it was first seen to say so, on this machine's clock."""

    uid: str
    spec: Object
    since: float


def seen(lease: Object, before: Seen | None, now: float) -> Seen:
    """Labels don't count: a sharder writes the state that it shows there without renewing anything."""
    uid, spec = lease["metadata"].get("uid", ""), lease.get("spec") or {}
    if before is not None and (before.uid, before.spec) == (uid, spec):
        return before
    return Seen(uid, copy.deepcopy(spec), now)


def wait(identity: Identity, times: Times, lease: Seen, now: float) -> float:
    """How many seconds it is still somebody else's; 0: it can be taken."""
    if lease.spec.get("holderIdentity") in (None, "", identity.name):
        return 0.0
    duration = lease.spec.get("leaseDurationSeconds") or times.duration
    return max(lease.since + duration - now, 0.0)


def created(identity: Identity, times: Times, wall: datetime.datetime) -> Object:
    """A Lease that isn't there yet."""
    lease: Object = {
        "apiVersion": f"{LEASES.group}/{LEASES.version}",
        "kind": LEASES.kind,
        "metadata": {"name": identity.name, "namespace": identity.namespace},
        "spec": {"leaseTransitions": 0},
    }
    return _held(lease, identity, times, wall)


def taken(lease: Object, identity: Identity, times: Times, wall: datetime.datetime) -> Object:
    """One that is there. What it has besides, as the sharder's labels, stays."""
    lease = copy.deepcopy(lease)
    spec = lease.setdefault("spec", {})
    if spec.get("holderIdentity") != identity.name:
        spec["leaseTransitions"] = (spec.get("leaseTransitions") or 0) + 1
    return _held(lease, identity, times, wall)


def renewed(lease: Object, identity: Identity, wall: datetime.datetime) -> Object:
    lease = copy.deepcopy(lease)
    lease["spec"]["renewTime"] = micro_time(wall)
    lease["metadata"].setdefault("labels", {})[identity.dialect.lease_ring] = identity.ring
    return lease


def released(lease: Object) -> Object:
    """The rest stays as it is."""
    lease = copy.deepcopy(lease)
    lease["spec"]["holderIdentity"] = ""
    return lease


def same_holding(lease: Object, mine: Object) -> bool:
    """Whether a Lease is still held by the process that wrote `mine`: another one of its name acquired it anew."""
    fields = ("holderIdentity", "acquireTime", "leaseTransitions")
    return lease["metadata"].get("uid") == mine["metadata"].get("uid") and all(
        (lease.get("spec") or {}).get(field) == mine["spec"].get(field) for field in fields
    )


def _held(lease: Object, identity: Identity, times: Times, wall: datetime.datetime) -> Object:
    labels = lease["metadata"].get("labels") or {}
    lease["metadata"]["labels"] = {**labels, identity.dialect.lease_ring: identity.ring}
    lease["spec"] |= {
        "holderIdentity": identity.name,
        "leaseDurationSeconds": math.ceil(times.duration),
        "acquireTime": micro_time(wall),
        "renewTime": micro_time(wall),
    }
    return lease


def micro_time(wall: datetime.datetime) -> str:
    return wall.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
