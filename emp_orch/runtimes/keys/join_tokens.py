"""Who may join as which machine: tokens that one key of the fleet signs, and the words that make them void.

A token opens the door to one machine of one fleet, or to one pool, and says until when. It is HMAC-SHA256 over a
versioned text; nothing but the key and the eras of machines and pools is kept, in `.emp/control/join.key`, 0600. Of
members nothing is: their tokens count while the member that they name is one (store/fleet/pools/members).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Literal

import msgspec
from msgspec import Struct, structs

from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import MachineId, Member
from emp_orch.layout import Layout
from emp_orch.procident import locked
from emp_orch.settings import write_private

VERSION = "emp1"
TOKEN_KEY_BYTES = 32
# Far above what a name of 63 letters twice makes of it.
MAX_TOKEN = 1_024


class _Claims(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a token says. `expires_s` is a time since the epoch, None for a token that a box keeps. `era`: how often
    the machine's or pool's tokens had been made void before this one; of a member when it was born, in ms, and
    `life` as the member has it.

    `kind`: a machine's where it is empty. With a pool's token any box may join, with one that names a machine that
    member alone; once the pool has `most` members nobody new, 0: as many as the pool takes.
    """

    fleet: str
    machine: str
    era: int
    expires_s: int | None
    kind: Literal["", "pool", "member"] = ""
    pool: str = ""
    most: int = 0
    life: int = 0


class OfPool(Struct, frozen=True, kw_only=True):
    """What a pool's token opens: the way into `pool`. `member_id` not empty: for that one only. `most` not 0: to as
    many members, by this token.
    """

    pool: str
    member_id: str = ""
    most: int = 0


class OfMember(Struct, frozen=True, kw_only=True):
    """Whom a member's token stands for, as long as there is such a member that was born then, and no other box was it
    since.
    """

    pool: str
    member_id: str
    born_ms: int
    life: int = 0

    def is_of(self, member: Member | None) -> bool:
        """Whether `member` is the one, and its box the one that got the token."""
        return member is not None and self == OfMember(
            pool=member.pool, member_id=member.id, born_ms=member.born_ms, life=member.life
        )


class _Kept(Struct, frozen=True, kw_only=True):
    """`key` in hexadecimal; `eras` of the machines, and of the pools by `_era_of`, whose tokens were ever made void;
    `out`: machines that have had none since."""

    key: str
    eras: dict[str, int] = {}
    out: tuple[str, ...] = ()


class JoinTokens:
    """The tokens of the fleet in one folder. Every call reads the file: the CLI and the API share it."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.control / "join.key"
        self._lock = layout.control / ".join.lock"

    def issue(self, fleet: str, machine_id: str, *, expires_s: int | None) -> str:
        """A new token. Raises EmpError when the key cannot be read or written."""
        kept = self._let_in(machine_id)
        claims = _Claims(fleet=fleet, machine=machine_id, era=kept.eras.get(machine_id, 0), expires_s=expires_s)
        return _signed(kept, claims)

    def pool_token(self, fleet: str, pool: str, *, expires_s: int | None, member_id: str = "", most: int = 0) -> str:
        """A new token that lets any box join `pool`, or only as `member_id`; `most` as `OfPool` has it. Raises as
        `issue`.
        """
        kept = self._kept() or self._made()
        claims = _Claims(
            kind="pool",
            fleet=fleet,
            pool=pool,
            machine=member_id,
            era=kept.eras.get(_era_of(pool), 0),
            expires_s=expires_s,
            most=most,
        )
        return _signed(kept, claims)

    def member_token(self, fleet: str, pool: str, member_id: str, *, born_ms: int, life: int = 0) -> str:
        """The token that a member keeps: good while it is one, and its box the same. Raises as `issue`."""
        kept = self._kept() or self._made()
        claims = _Claims(
            kind="member", fleet=fleet, pool=pool, machine=member_id, era=born_ms, life=life, expires_s=None
        )
        return _signed(kept, claims)

    def opens(self, token: str, fleet: str, machine_id: str, *, now_s: float) -> bool:
        """Whether `token` is ours, for this machine, and neither expired nor void. Says no about anything else."""
        return self.holder(token, fleet, now_s=now_s) == machine_id

    def holder(self, token: str, fleet: str, *, now_s: float) -> str | None:
        """The machine of emp.yaml that `token` stands for now; None for all that is no such token of this fleet."""
        claims = self._opened(token, fleet, now_s)
        return claims.machine if claims is not None and claims.kind == "" else None

    def pool_of(self, token: str, fleet: str, *, now_s: float) -> OfPool | None:
        """What a pool's token opens now; None for all that is none of this fleet."""
        claims = self._opened(token, fleet, now_s)
        if claims is None or claims.kind != "pool":
            return None
        return OfPool(pool=claims.pool, member_id=claims.machine, most=claims.most)

    def member_of(self, token: str, fleet: str, *, now_s: float) -> OfMember | None:
        """Whose token it is, if a member's of this fleet. The caller looks whether there is such a member still."""
        claims = self._opened(token, fleet, now_s)
        return _member(claims) if claims is not None and claims.kind == "member" else None

    def stands_for(self, token: str, fleet: str, *, now_s: float) -> str | OfMember | None:
        """As `holder`, or as `member_of`, by one look at the key."""
        claims = self._opened(token, fleet, now_s)
        if claims is None or claims.kind == "pool":
            return None
        return claims.machine if claims.kind == "" else _member(claims)

    def _opened(self, token: str, fleet: str, now_s: float) -> _Claims | None:
        kept = self._kept()
        head, dot, mac = token.rpartition(".")
        if kept is None or not dot or len(token) > MAX_TOKEN:
            return None
        if not hmac.compare_digest(_text(_mac(kept, head)).encode(), mac.encode("utf-8", "surrogateescape")):
            return None
        version, _, payload = head.partition(".")
        claims = _claims(payload) if version == VERSION else None
        if claims is None or claims.fleet != fleet:
            return None
        # A member's era is looked at by who knows the members.
        name = _era_of(claims.pool) if claims.kind == "pool" else claims.machine
        if claims.kind != "member" and claims.era != kept.eras.get(name, 0):
            return None
        return claims if claims.expires_s is None or now_s < claims.expires_s else None

    def revoke(self, machine_id: str) -> None:
        """Make every token void that was issued for `machine_id` so far, and the password that it was given."""
        with locked(self._lock):
            kept = self._kept() or self._new()
            eras = {**kept.eras, machine_id: kept.eras.get(machine_id, 0) + 1}
            self._write(structs.replace(kept, eras=eras, out=tuple(sorted({*kept.out, machine_id}))))

    def revoke_pool(self, pool: str) -> None:
        """Make every token void that was issued to join `pool` so far. Who is a member stays one."""
        with locked(self._lock):
            kept = self._kept() or self._new()
            name = _era_of(pool)
            self._write(structs.replace(kept, eras={**kept.eras, name: kept.eras.get(name, 0) + 1}))

    def shut_out(self) -> frozenset[MachineId]:
        """Machines whose tokens were made void, and that were given none since."""
        kept = self._kept()
        return frozenset(map(MachineId, kept.out)) if kept else frozenset()

    def _let_in(self, machine_id: str) -> _Kept:
        kept = self._kept() or self._made()
        if machine_id not in kept.out:
            return kept
        with locked(self._lock):
            kept = self._kept() or self._new()
            kept = structs.replace(kept, out=tuple(i for i in kept.out if i != machine_id))
            self._write(kept)
        return kept

    def password(self, fleet: str, machine_id: str) -> str:
        """The machine's password at Redis: the same until its tokens are made void.

        A Redis that restarted has lost it. Were it drawn anew then, every program of the machine would have to start
        again; so it is made from the key.
        """
        kept = self._kept() or self._made()
        era = kept.eras.get(machine_id, 0)
        return _mac(kept, f"{VERSION} redis {fleet} {machine_id} {era}").hex()

    def member_password(self, fleet: str, member_id: str, born_ms: int) -> str:
        """As `password`, of a member: another one once it was forgotten and is born again."""
        kept = self._kept() or self._made()
        return _mac(kept, f"{VERSION} redis-member {fleet} {member_id} {born_ms}").hex()

    def _made(self) -> _Kept:
        with locked(self._lock):
            kept = self._kept()
            if kept is None:
                kept = self._new()
                self._write(kept)
            return kept

    def _new(self) -> _Kept:
        return _Kept(key=secrets.token_hex(TOKEN_KEY_BYTES))

    def _kept(self) -> _Kept | None:
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
            if len(bytes.fromhex(kept.key)) != TOKEN_KEY_BYTES:
                raise ValueError("the key is too short")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.MsgspecError) as e:
            why = e.strerror if isinstance(e, OSError) else "it is damaged"
            raise EmpError(
                f"cannot read {self._path}: {why}",
                hint="remove it, and give every external machine a new line with `emp machine join`",
            ) from None
        return kept

    def _write(self, kept: _Kept) -> None:
        try:
            write_private(self._path, msgspec.json.encode(kept))
        except OSError as e:
            raise EmpError(f"cannot write {self._path}: {e.strerror}", hint="check who owns the fleet's folder") from e


def _member(claims: _Claims) -> OfMember:
    return OfMember(pool=claims.pool, member_id=claims.machine, born_ms=claims.era, life=claims.life)


def _era_of(pool: str) -> str:
    """The name of the pool's era: no machine has a colon in its name."""
    return f"pool:{pool}"


def _signed(kept: _Kept, claims: _Claims) -> str:
    head = f"{VERSION}.{_text(msgspec.json.encode(claims))}"
    return f"{head}.{_text(_mac(kept, head))}"


def _mac(kept: _Kept, text: str) -> bytes:
    return hmac.digest(bytes.fromhex(kept.key), text.encode("utf-8", "surrogateescape"), hashlib.sha256)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _claims(payload: str) -> _Claims | None:
    try:
        raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        return msgspec.json.decode(raw, type=_Claims)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return None
