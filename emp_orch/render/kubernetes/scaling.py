"""What has KEDA keep as many pods as emp wants: a question to the API, and the token for it."""

from __future__ import annotations

from collections.abc import Iterator

from emp_orch.render.kubernetes.names import TOKEN_KEY, Document, OnCluster

KEDA = "keda.sh/v1alpha1"
# Where the answer of GET /api/pools/NAME has the number (api/handlers/pools).
WANTED = "data.wanted"
_ASK_EVERY_S = 15


def scaling(asked: OnCluster) -> Iterator[Document]:
    """Nothing for a pool of one size. emp waits before it wants more or fewer, so the cluster does not wait again."""
    if not asked.scales:
        return
    token = {"parameter": TOKEN_KEY, "name": asked.api_secret, "key": TOKEN_KEY}
    yield asked.document(KEDA, "TriggerAuthentication", spec={"secretTargetRef": [token]})
    at_once = {"type": "Pods", "value": asked.pool.max_size, "periodSeconds": _ASK_EVERY_S}
    behavior = {way: {"stabilizationWindowSeconds": 0, "policies": [at_once]} for way in ("scaleUp", "scaleDown")}
    trigger = {
        "type": "metrics-api",
        "metricType": "AverageValue",
        "metadata": {
            "url": f"{asked.api}/api/pools/{asked.name}",
            "valueLocation": WANTED,
            "targetValue": "1",
            "authMode": "bearer",
        },
        "authenticationRef": {"name": asked.name},
    }
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": asked.name},
        "minReplicaCount": asked.pool.min_size,
        "maxReplicaCount": asked.pool.max_size,
        "pollingInterval": _ASK_EVERY_S,
        "cooldownPeriod": 0,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
        "triggers": [trigger],
    }
    yield asked.document(KEDA, "ScaledObject", spec=spec)
