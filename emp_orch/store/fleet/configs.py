"""`machine:{id}:config`: what a machine is to run, sealed for it by the leader, and as the machine keeps it on disk."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.seals import CommandKey, Seal, Stamp, for_config
from emp_orch.store.fleet.fencing import write
from emp_orch.store.fleet.leader import Mandate
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.damaged import DAMAGED
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script

_WRITE = script("fleet/write")
_REMOVE = script("fleet/remove")


class MachineConfig(Struct, frozen=True, kw_only=True):
    """`supervisord` is the rendered text; `digest` the config_hash of `machine`; `package` what its workers run.

    `stamp` is when the leader said so; in none that came by another way than Redis.
    """

    generation: int
    digest: str
    supervisord: str
    machine: DesiredMachine
    package: WorkerPackage | None = None
    stamp: Stamp = Stamp()


_decoder = msgspec.json.Decoder(MachineConfig)


def encode(config: MachineConfig) -> bytes:
    return msgspec.json.encode(config)


def decode(text: str | bytes, where: str) -> MachineConfig:
    try:
        return _decoder.decode(text)
    except DAMAGED as e:
        raise EmpError(f"{where} is damaged: {e}", hint="the reconciler writes it anew at the next apply") from e


async def write_config(r: Client, keys: Keys, mandate: Mandate, config: MachineConfig, seal: Seal) -> None:
    """`seal`: the machine's. Raises NotLeader when `mandate` does not stand any more."""
    machine_id = config.machine.id
    text = seal.sealed(for_config(mandate.fleet, machine_id), encode(config))
    await write(r, keys, mandate, _WRITE, to=[keys.config(machine_id)], args=[text])


async def read_config(r: Client, keys: Keys, key: CommandKey) -> MachineConfig | None:
    """The configuration meant for the machine that has `key`; None when nobody wrote one. Raises Forged."""
    where = keys.config(key.machine)
    text = await r.get(where)
    if text is None:
        return None
    return decode(key.seal.opened(for_config(key.fleet, key.machine), text, where), where)


async def remove_machine_keys(r: Client, keys: Keys, mandate: Mandate, machine_id: str) -> None:
    """All that is kept for a machine beside its report. Raises NotLeader as above."""
    kept = [keys.config(machine_id), keys.commands(machine_id), keys.acks(machine_id)]
    await write(r, keys, mandate, _REMOVE, to=kept, args=[])
