"""All objects of a pool, and the text that `kubectl apply` takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

import yaml

from emp_orch.fleet.model.fleet import Pool
from emp_orch.render.kubernetes.names import TOKEN_KEY, Document, OnCluster
from emp_orch.render.kubernetes.pod import pod_spec
from emp_orch.render.kubernetes.scaling import scaling
from emp_orch.render.quoting import shell_line

_DNS = 53
_PORTS = {"http": 80, "https": 443}
# What every reader of YAML takes for a text, in versions 1.1 and 1.2.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]+", re.ASCII)
_WIDTH = 10_000


def render_kubernetes(asked: OnCluster) -> str:
    """YAML of several documents. Before them stands, as comments, how the secrets are made that they name."""
    made = yaml.dump_all(documents(asked), Dumper=_Dumper, sort_keys=False, explicit_start=True, width=_WIDTH)
    return "".join(f"# {line}\n" for line in _head(asked)) + made


def documents(asked: OnCluster) -> Iterator[Document]:
    """In the order in which a cluster should have them."""
    yield asked.document("v1", "ServiceAccount", automountServiceAccountToken=False)
    yield asked.document("networking.k8s.io/v1", "NetworkPolicy", spec=_network(asked))
    disruption = {"maxUnavailable": asked.max_unavailable, "selector": {"matchLabels": asked.labels}}
    yield asked.document("policy/v1", "PodDisruptionBudget", spec=disruption)
    yield asked.document("apps/v1", "StatefulSet", spec=_stateful_set(asked))
    yield from scaling(asked)


def _stateful_set(asked: OnCluster) -> Document:
    pool: Pool = asked.pool
    return {
        # Where KEDA says how many, an apply must not say something else.
        **({} if asked.scales else {"replicas": pool.max_size}),
        "serviceName": asked.name,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": asked.labels},
        "template": {"metadata": {"labels": asked.labels}, "spec": pod_spec(asked)},
    }


def _network(asked: OnCluster) -> Document:
    """Nobody reaches a box; it reaches name servers and the API."""
    parts = urlsplit(asked.api)
    names = {"ports": [{"protocol": protocol, "port": _DNS} for protocol in ("UDP", "TCP")]}
    api: Document = {"ports": [{"protocol": "TCP", "port": parts.port or _PORTS[parts.scheme]}]}
    try:
        address = ip_address(parts.hostname or "")
    except ValueError:  # a policy knows no names
        pass
    else:
        api["to"] = [{"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}]
    return {
        "podSelector": {"matchLabels": asked.labels},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [],
        "egress": [names, api],
    }


def _head(asked: OnCluster) -> Iterator[str]:
    create = ("kubectl", "create", "secret", "generic")
    token = shell_line("emp", "pool", "join", asked.name, "--expires", "90d", "--token")
    yield f"Rendered by emp: pool {asked.name} of fleet {asked.fleet} for a cluster of Kubernetes."
    yield "No secret stands here. Make what the objects name once, in their namespace, and then apply this file:"
    yield f"  {token} | {shell_line(*create, asked.join_secret, f'--from-file={TOKEN_KEY}=/dev/stdin')}"
    if asked.scales:
        yield f"  {shell_line(*create, asked.api_secret, f'--from-file={TOKEN_KEY}=FILE')}"
        yield "FILE holds a token of the API with the role read (api.tokens in emp.yaml). KEDA must be there."
    if asked.downloads:
        yield "Jobs may name URLs as inputs (jobs.inputs.hosts): let the NetworkPolicy pass them, which knows no names."


class _Dumper(yaml.SafeDumper):
    """Quotes what some reader of YAML could take for no text, and writes the same object out each time."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _PLAIN.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
