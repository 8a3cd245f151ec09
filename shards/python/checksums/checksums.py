# An example shard: a ConfigMap `checksums-<name>` with the SHA-256 of each value, for each Secret that is its own.
# Never touches a Secret that isn't its own, and never puts a value anywhere, only its checksum.
"""`checksums` turns a Secret into the ConfigMap that it should have; the rest is flags and the log."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import logging
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

# Beside this folder, if it isn't installed.
sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

from ringmaster_shard import DIALECTS, Identity, Kind, Run, Times

SECRETS = Kind("", "v1", "secrets", "Secret")
CONFIG_MAPS = Kind("", "v1", "configmaps", "ConfigMap")
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)")

# === the example: Secret -> ConfigMap ===


def checksums(secret: dict[str, Any]) -> dict[str, Any]:
    """The ConfigMap that a Secret should have, without labels."""
    metadata = secret["metadata"]
    values = secret.get("data") or {}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"checksums-{metadata['name']}",
            "namespace": metadata["namespace"],
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "data": {key: hashlib.sha256(base64.b64decode(value)).hexdigest() for key, value in values.items()},
    }


async def reconcile(run: Run) -> None:
    if "deletionTimestamp" in run.main["metadata"]:
        return
    wanted = checksums(run.main)
    there = run.child(CONFIG_MAPS, wanted["metadata"]["name"])
    if there is None:
        await run.create(CONFIG_MAPS, wanted)
    elif (there.get("data") or {}) != wanted["data"]:
        await run.update(CONFIG_MAPS, {**there, "data": wanted["data"]})


# === flags and the log ===


def duration(text: str) -> float:
    """Seconds, from `15s` or `500ms`."""
    match = DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: a number with the suffix s or ms, as in 15s")
    return float(match[1]) / (1000 if match[2] == "ms" else 1)


def log_of(shard: str) -> Callable[[str, Mapping[str, Any]], None]:
    def tell(event: str, fields: Mapping[str, Any]) -> None:
        line = {"ts": time.time_ns() // 1000, "shard": shard, "event": event, **fields}
        # One system call, without Python's buffers: threads don't mix lines, and none is lost when the process ends.
        os.write(1, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    return tell


def flags(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A shard that keeps checksums of Secrets in ConfigMaps.")
    parser.add_argument("--ring", required=True, help="the ControllerRing's name")
    parser.add_argument("--name", help="the shard's name (default: the host's)")
    parser.add_argument("--namespace", help="of the Lease (default: the pod's)")
    parser.add_argument("--dialect", choices=sorted(DIALECTS), default="ringmaster")
    parser.add_argument("--lease-duration", type=duration, default="15s", metavar="15s")
    parser.add_argument("--renew-deadline", type=duration, default="10s", metavar="10s")
    parser.add_argument("--retry-period", type=duration, default="2s", metavar="2s")
    parser.add_argument("--kubeconfig", help="default: $KUBECONFIG, or the pod's service account")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    chosen = flags(arguments)
    try:
        identity = Identity.of_this_process(chosen.ring, chosen.name, chosen.namespace, DIALECTS[chosen.dialect])
        times = Times(chosen.lease_duration, chosen.renew_deadline, chosen.retry_period)
    except ValueError as error:
        # It begins with the field's name, which is the flag's.
        field, _, problem = str(error).partition(":")
        print(f"checksums: --{field.replace(' ', '-')}:{problem}", file=sys.stderr)
        return 2
    if chosen.kubeconfig:
        os.environ["KUBECONFIG"] = chosen.kubeconfig
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # kopf tells of every event that it hands on.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    # Imported here, so that the example's logic needs no kopf.
    from ringmaster_shard.operator import Operator

    return Operator(identity, SECRETS, [CONFIG_MAPS], reconcile, times=times, listener=log_of(identity.name)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
