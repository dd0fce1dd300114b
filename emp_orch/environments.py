"""Which variables a process of the fleet takes over from whoever starts it: those that its role names, and no others.

What emp.yaml gives a program comes on top, and what emp tells its own. Pure, and cheap to import: it runs before each
daemon. docs/adr/0036.
"""

from __future__ import annotations

from collections.abc import Mapping

_PERSON = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TZDIR", "TMPDIR", "TEMP", "TMP"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"),
        "EMP_DEBUG",
    )
)
_LOADER = frozenset(
    (
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_CONF", "MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_"),
        *("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV"),
    )
)
_CERTIFICATES = frozenset(
    ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS")
)
_SMALL = ("http_proxy", "https_proxy", "ftp_proxy", "ws_proxy", "wss_proxy", "socks_proxy", "all_proxy", "no_proxy")
_PROXIES = frozenset((*_SMALL, *(name.upper() for name in _SMALL)))
# What drivers, and the libraries above them, are told by: which devices, where they lie, how many threads.
_DEVICES = (
    *("CUDA_", "CUDNN_", "CUBLAS_", "NVIDIA_", "NCCL_", "ROCR_", "ROCM_", "HIP_", "HSA_", "AMD_", "GPU_", "MIOPEN_"),
    *("ZE_", "ONEAPI_", "SYCL_", "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "NUMEXPR_"),
    *("PYTORCH_", "TORCH_", "TORCHINDUCTOR_", "TRITON_", "XLA_"),
)
# No pattern takes a name that tells of a secret: NVIDIA_API_KEY stands beside NVIDIA_VISIBLE_DEVICES.
_TELLING = ("KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "AUTH")
# How a docker or ssh command finds its engine and proves who it is.
_ENGINES = frozenset(
    (
        *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS", "DOCKER_TLS_VERIFY"),
        *("DOCKER_API_VERSION", "DOCKER_DEFAULT_PLATFORM", "COMPOSE_PARALLEL_LIMIT", "COMPOSE_HTTP_TIMEOUT"),
        *("SSH_AUTH_SOCK", "XDG_RUNTIME_DIR"),
    )
)

_PLAIN = _PERSON | _LOADER | _CERTIFICATES
# A machine's supervisord, and so every program of it: services are a user's programs, and find their devices by it.
MACHINE = "machine"
# The control plane's supervisord has what any of its daemons needs; each of them gets its own share (`of_daemon`).
CONTROL = "control"
_NAMES: Mapping[str, frozenset[str]] = {
    "redis": _PLAIN,
    "eventlog": _PLAIN,
    "monitor": _PLAIN,
    "api": _PLAIN | _PROXIES,  # an artifact store may be outside
    MACHINE: _PLAIN | _PROXIES,
    "reconcile": _PLAIN | _PROXIES | _ENGINES,  # it starts machines, here and on Docker hosts
    CONTROL: _PLAIN | _PROXIES | _ENGINES,
}
_WITH_DEVICES = frozenset({MACHINE, "reconcile", CONTROL})
# What a supervisord tells what it starts. Nothing else of these names came in from outside.
_TOLD = ("EMP_", "SUPERVISOR_")

# What the packages of an artifact store look for, by the scheme of its URL.
_S3 = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"),
    *("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CONFIG_FILE", "AWS_CA_BUNDLE"),
    *("AWS_SHARED_CREDENTIALS_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    *("AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_EC2_METADATA_DISABLED"),
    # Servers that speak S3 and are not Amazon's refuse what botocore adds by itself.
    *("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION", "AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS"),
    *("FSSPEC_S3_ENDPOINT_URL", "FSSPEC_S3_KEY", "FSSPEC_S3_SECRET"),
)
_GCS = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "STORAGE_EMULATOR_HOST")
_AZURE = (
    *("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_CONNECTION_STRING"),
    *("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CLIENT_ID", "AZURE_STORAGE_CLIENT_SECRET", "AZURE_STORAGE_TENANT_ID"),
)
_STORES = {"s3": _S3, "s3a": _S3, "gs": _GCS, "gcs": _GCS, "az": _AZURE, "abfs": _AZURE, "abfss": _AZURE}


def of_role(role: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What a process of `role` takes over from `environ`."""
    return {name: value for name, value in environ.items() if passes(role, name)}


def passes(role: str, name: str) -> bool:
    """Whether a process of `role` takes over the variable `name`."""
    if name in _NAMES[role]:
        return True
    if name.startswith("LC_") or (name.startswith("PYTHON") and "_" not in name):
        return not _tells_of_a_secret(name)
    return role in _WITH_DEVICES and name.startswith(_DEVICES) and not _tells_of_a_secret(name)


def of_daemon(daemon: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Its share of `environ`, which is the control plane's supervisord's; all of it for one that is no daemon there."""
    if daemon not in _NAMES:
        return dict(environ)
    return {name: value for name, value in environ.items() if name.startswith(_TOLD) or passes(daemon, name)}


def of_store(url: str) -> tuple[str, ...]:
    """The names that whoever opens the artifact store at `url` is given, where they are set."""
    scheme, separator, _ = url.partition("://")
    return _STORES.get(scheme, ()) if separator else ()


def _tells_of_a_secret(name: str) -> bool:
    return any(word in name for word in _TELLING)
