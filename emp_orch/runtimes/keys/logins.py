"""How each machine logs in at Redis: as a user of its own where Redis takes those, else as the fleet does.

The password is made from the fleet's key for machines (join_tokens): a user that Redis lost is made anew as it was, and
no program has to start again.
"""

from __future__ import annotations

from emp_orch.layout import Layout
from emp_orch.redis_users import user_of
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.settings import Settings
from emp_orch.urls import database_of, with_login

# In the machine's folder, 0600, one line: the way to Redis with the login. The variable names such a file.
REDIS_FILE = "hub_redis_url"
URL_FILE = "HUB_REDIS_URL_FILE"


class MachineLogins:
    """`scoped`: Redis takes such users. Whoever starts machines finds out, and says so here."""

    def __init__(self, layout: Layout, settings: Settings, *, scoped: bool = False) -> None:
        self.scoped = scoped
        self._tokens = JoinTokens(layout)
        self._fleet = settings.fleet
        self._prefix = settings.prefix
        self._database = database_of(settings.redis_url)

    def password(self, machine_id: str) -> str:
        """Raises EmpError when the key cannot be read or written."""
        return self._tokens.password(self._fleet, machine_id)

    def way(self, machine_id: str, url: str) -> str:
        """`url`, which leads to the fleet's Redis, with the login of the machine."""
        if not self.scoped:
            return url
        user = user_of(self._fleet, machine_id, prefix=self._prefix, database=self._database)
        return with_login(url, user, self.password(machine_id))
