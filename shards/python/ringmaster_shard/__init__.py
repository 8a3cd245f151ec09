"""A shard of a ring: a process that keeps a Lease, works on the objects that carry its label, and lets go of those that
are to be drained. Ringmaster, or controller-sharding's sharder, gives it its objects.

Start with `ringmaster_shard.operator.Operator`. What is exported here needs the standard library only; kopf and aiohttp
come in with `ringmaster_shard.api` and `ringmaster_shard.operator`.
"""

from .lease import Times
from .naming import CONTROLLER_SHARDING, DIALECTS, RINGMASTER, Dialect, Identity, Kind
from .right import Lost, Right
from .shard import Run, Shard

__all__ = [
    "CONTROLLER_SHARDING",
    "DIALECTS",
    "RINGMASTER",
    "Dialect",
    "Identity",
    "Kind",
    "Lost",
    "Right",
    "Run",
    "Shard",
    "Times",
]
