"""Every way an emp.yaml can be wrong that we know of, with the exact words a user reads."""
# ruff: noqa: E501  # a line is what a user reads

from __future__ import annotations

from typing import NamedTuple

import pytest

from emp_orch.errors import Exit
from emp_orch.manifest import ConfigError, load_text

HEAD = "version: 1\nname: f\n"
SIM = "  sim: {scale: per_gpu, builtin: simulation, port: 8188}\n"
ENVIRON = {
    "HUNTER": "hunter2",
    "HUNTER_URL": "redis://u:hunter2@h",
    "EMPTY": "",
    "SLY": "${port}",
    "RAW": "\udcff",
    "MINUS": "-7",
    "TWO": "2",
}


def doc(services: str = "", machines: str = "", rest: str = "") -> str:
    """A file with these entries under `services` and `machines`."""
    text = HEAD + rest
    text += f"services:\n{services}" if services else ""
    return text + (f"machines:\n{machines}" if machines else "")


WAY_TO_API = (
    "    api: {host: 0.0.0.0, token: {env: EMP_TOKEN}, machine_url: http://HOST:3331}, "
    "or jobs: {artifacts: s3://BUCKET/FOLDER} and `emp images build --store s3`"
)
FREE = "    choose a folder apart from /var/lib/emp, /var/lib/emp-own, /run/secrets, /opt/emp, /tmp, /proc, /sys, /dev"


class Case(NamedTuple):
    """`told`: the lines of all problems; a hint is a line that begins with spaces."""

    name: str
    text: str
    told: list[str]


CASES = [
    # syntax and structure
    Case(
        "empty",
        "",
        [
            "emp.yaml:1:1: the file is empty",
            "    `emp init` writes one to start from",
        ],
    ),
    Case(
        "only_comment",
        "# nothing\n",
        [
            "emp.yaml:1:1: the file is empty",
            "    `emp init` writes one to start from",
        ],
    ),
    Case(
        "null_document",
        "---\n",
        [
            "emp.yaml:1:1: the file is empty",
            "    `emp init` writes one to start from",
        ],
    ),
    Case(
        "root_list",
        "- a\n",
        [
            "emp.yaml:1:1: expected a mapping, found a list",
            "    begin with `version: 1`",
        ],
    ),
    Case(
        "root_text",
        "hello\n",
        [
            "emp.yaml:1:1: expected a mapping, found text",
            "    begin with `version: 1`",
        ],
    ),
    Case(
        "two_documents",
        HEAD + "---\nname: g\n",
        [
            "emp.yaml:3:1: a second document begins here",
            "    one file describes one fleet: remove `---`",
        ],
    ),
    Case(
        "tab",
        HEAD + "services:\n\tsim: {}\n",
        [
            "emp.yaml:4:1: a tab cannot indent YAML",
            "    use spaces",
        ],
    ),
    Case(
        "control_character",
        HEAD + "x-a: \x07\n",
        [
            "emp.yaml:3:6: character U+0007 is not allowed here",
            "    remove it; in double quotes it can be written as \\uXXXX",
        ],
    ),
    Case(
        "unclosed_quote",
        HEAD + 'x-a: "b\n',
        [
            "emp.yaml:4:1: not YAML: found unexpected end of stream",
            "    while scanning a quoted scalar, begun in line 3",
        ],
    ),
    Case(
        "unclosed_flow",
        HEAD + "api: {port: 1\n",
        [
            "emp.yaml:4:1: not YAML: did not find expected ',' or '}'",
            "    while parsing a flow mapping, begun in line 3",
        ],
    ),
    Case(
        "second_colon",
        HEAD + "x-a: b: c\n",
        [
            "emp.yaml:3:7: not YAML: a second `:` in this place",
            "    quote the text, or check the indentation",
        ],
    ),
    Case(
        "bad_indent",
        HEAD + "redis:\n  port: 7000\n url: embedded\n",
        [
            "emp.yaml:5:2: not YAML: did not find expected key",
            "    check the indentation of this line against the lines above",
        ],
    ),
    Case(
        "backtick",
        HEAD + "x-a: `b\n",
        [
            "emp.yaml:3:6: not YAML: found character that cannot start any token",
            "    quote the text",
        ],
    ),
    Case(
        "duplicate_key",
        HEAD + "name: g\n",
        [
            'emp.yaml:3:1: name: duplicate key "name"',
            "    it stands in line 2 already",
        ],
    ),
    Case(
        "duplicate_nested",
        doc(SIM + SIM, ""),
        [
            'emp.yaml:5:3: services.sim: duplicate key "sim"',
            "    it stands in line 4 already",
        ],
    ),
    Case(
        "mapping_as_key",
        HEAD + "? {a: 1}\n: b\n",
        [
            "emp.yaml:3:3: expected text as a key, found a mapping",
            "    quote the key",
        ],
    ),
    Case(
        "tag",
        HEAD + "x-a: !!python/object:os.system x\n",
        [
            "emp.yaml:3:6: x-a: the tag !!python/object:os.system is not supported",
            "    remove it",
        ],
    ),
    Case(
        "local_tag",
        HEAD + "api: !mine {port: 1}\n",
        [
            "emp.yaml:3:6: api: the tag !mine is not supported",
            "    remove it",
        ],
    ),
    Case(
        "unknown_alias",
        HEAD + "x-a: *b\n",
        [
            "emp.yaml:3:6: no anchor &b stands before this alias",
        ],
    ),
    Case(
        "self_alias",
        HEAD + "x-a: &a [*a]\n",
        [
            "emp.yaml:3:10: the alias *a contains itself",
        ],
    ),
    Case(
        "merge_text",
        HEAD + "x-a: {<<: b}\n",
        [
            'emp.yaml:3:11: x-a."<<": expected a mapping to merge, or a list of them',
            "    write `<<: *anchor`",
        ],
    ),
    Case(
        "nul",
        HEAD + 'x-a: "\\0"\n',
        [
            "emp.yaml:3:6: x-a: a NUL character cannot be part of a value",
        ],
    ),
    Case(
        "variable_in_flow",
        doc("", "  m: {services: [], num_gpus: ${NUM_GPUS}}\n"),
        [
            "emp.yaml:4:32: not YAML: ${ inside { } or [ ]",
            "    put it in quotes, or write this part with one line each",
        ],
    ),
    Case(
        "too_deep",
        HEAD + "x-a: " + "[" * 40 + "]" * 40 + "\n",
        [
            "emp.yaml:3:38: nested deeper than 32 levels",
        ],
    ),
    # schema
    Case(
        "missing_both",
        "{}\n",
        [
            "emp.yaml:1:1: version: missing; expected 1",
            "emp.yaml:1:1: name: missing; expected a name of lower-case letters, digits and -, at most 63, not beginning with -",
        ],
    ),
    Case(
        "version_2",
        "version: 2\nname: f\n",
        [
            "emp.yaml:1:10: version: expected 1, found 2",
        ],
    ),
    Case(
        "version_text",
        'version: "1"\nname: f\n',
        [
            'emp.yaml:1:10: version: expected 1, found "1"',
        ],
    ),
    Case(
        "name_upper",
        "version: 1\nname: Basic\n",
        [
            'emp.yaml:2:7: name: expected a name of lower-case letters, digits and -, at most 63, not beginning with -, found "Basic"',
        ],
    ),
    Case(
        "name_newline",
        'version: 1\nname: "a\\n"\n',
        [
            'emp.yaml:2:7: name: expected a name of lower-case letters, digits and -, at most 63, not beginning with -, found "a\\n"',
        ],
    ),
    Case(
        "unknown_top",
        HEAD + "machine: {}\n",
        [
            "emp.yaml:3:1: machine: unknown key",
            '    did you mean "machines"?',
        ],
    ),
    Case(
        "unknown_nothing_near",
        HEAD + "zzzzz: {}\n",
        [
            "emp.yaml:3:1: zzzzz: unknown key",
            "    known here: version, name, redis, api, monitor, control, hosts, services, defaults, machines, pools, jobs, worker_package, reconcile",
        ],
    ),
    Case(
        "api_port_low",
        HEAD + "api: {port: 0}\n",
        [
            "emp.yaml:3:13: api.port: expected a port from 1 to 65535, found 0",
        ],
    ),
    Case(
        "api_port_high",
        HEAD + "api: {port: 65536}\n",
        [
            "emp.yaml:3:13: api.port: expected a port from 1 to 65535, found 65536",
        ],
    ),
    Case(
        "api_port_quoted",
        HEAD + 'api: {port: "3331"}\n',
        [
            'emp.yaml:3:13: api.port: expected a port from 1 to 65535, found "3331"',
            "    remove the quotes",
        ],
    ),
    Case(
        "api_port_half",
        HEAD + "api: {port: 3331.5}\n",
        [
            "emp.yaml:3:13: api.port: expected a port from 1 to 65535, found 3331.5",
        ],
    ),
    Case(
        "api_null",
        HEAD + "api:\n",
        [
            "emp.yaml:3:5: api: expected a mapping with host, port, token, tokens and machine_url, found nothing",
            "    give it a value, or remove the key",
        ],
    ),
    Case(
        "token_text",
        HEAD + "api: {token: hunter2}\n",
        [
            "emp.yaml:3:14: api.token: expected {env: NAME} or {file: PATH}, found text",
            "    a secret never stands in this file: put it into the environment and write {env: NAME}",
        ],
    ),
    Case(
        "token_empty",
        HEAD + "api: {token: {}}\n",
        [
            "emp.yaml:3:14: api.token: expected {env: NAME} or {file: PATH}, found an empty mapping",
            "    a secret never stands in this file: put it into the environment and write {env: NAME}",
        ],
    ),
    Case(
        "token_both",
        HEAD + "api: {token: {env: A, file: b}}\n",
        [
            "emp.yaml:3:14: api.token: expected {env: NAME} or {file: PATH}, found a mapping",
            "    a secret never stands in this file: put it into the environment and write {env: NAME}",
        ],
    ),
    Case(
        "token_key",
        HEAD + "api: {token: {envv: A}}\n",
        [
            "emp.yaml:3:15: api.token.envv: unknown key",
            '    did you mean "env"?',
        ],
    ),
    # jobs
    Case(
        "artifacts_folder",
        HEAD + "jobs: {artifacts: /srv/out}\n",
        [
            "emp.yaml:3:19: jobs.artifacts: expected a URL such as file:///FOLDER or s3://BUCKET/FOLDER, or nothing, found text",
        ],
    ),
    Case(
        "artifacts_relative",
        HEAD + "jobs: {artifacts: 'file://out'}\n",
        [
            "emp.yaml:3:19: jobs.artifacts: expected a URL such as file:///FOLDER or s3://BUCKET/FOLDER, or nothing, found a URL that begins with file://",
        ],
    ),
    Case(
        "artifacts_login",
        HEAD + "jobs: {artifacts: 's3://key:hunter2@bucket/out'}\n",
        [
            "emp.yaml:3:19: jobs.artifacts: expected a URL without user and password",
            "    put credentials into the environment, where the store's package looks for them",
        ],
    ),
    Case(
        "keep_and_lease",
        HEAD + "jobs: {keep: {count: -1, age: 0s, days: 3}, lease: 10ms}\n",
        [
            "emp.yaml:3:22: jobs.keep.count: expected an integer from 0 to 10000000, found -1",
            'emp.yaml:3:31: jobs.keep.age: expected a duration above zero, such as 500ms, 2s, 5m or 1h, found "0s"',
            "emp.yaml:3:35: jobs.keep.days: unknown key",
            "    known here: count, age",
        ],
    ),
    Case(
        "short_lease",
        HEAD + "jobs: {lease: 999ms}\n",
        [
            'emp.yaml:3:15: jobs.lease: expected at least 1s, found "0.999s"',
            "    a worker renews three times in it",
        ],
    ),
    Case(
        "redis_http",
        HEAD + "redis: {url: 'http://u:hunter2@h'}\n",
        [
            "emp.yaml:3:14: redis.url: expected embedded, or a URL that begins with redis://, rediss://, redis+sentinel://, rediss+sentinel:// or unix://, found a URL that begins with http://",
        ],
    ),
    Case(
        "redis_text",
        HEAD + "redis: {url: hunter2}\n",
        [
            "emp.yaml:3:14: redis.url: expected embedded, or a URL that begins with redis://, rediss://, redis+sentinel://, rediss+sentinel:// or unix://, found text",
        ],
    ),
    Case(
        "redis_port",
        HEAD + "redis: {url: 'redis://u:hunter2@h:x'}\n",
        [
            "emp.yaml:3:14: redis.url: expected a port from 1 to 65535 and a plain host in the URL",
            "    redis://[user:password@]host[:port][/database], rediss://…, unix:///socket[?db=database], or redis+sentinel://host:port,host:port/name[/database]",
        ],
    ),
    Case(
        "redis_no_host",
        HEAD + "redis: {url: 'redis://:hunter2@'}\n",
        [
            "emp.yaml:3:14: redis.url: expected a host in the URL",
            "    redis://[user:password@]host[:port][/database], rediss://…, unix:///socket[?db=database], or redis+sentinel://host:port,host:port/name[/database]",
        ],
    ),
    Case(
        "redis_database",
        HEAD + "redis: {url: 'redis://h/hunter2'}\n",
        [
            "emp.yaml:3:14: redis.url: expected a database number after the host in the URL",
            "    redis://[user:password@]host[:port][/database], rediss://…, unix:///socket[?db=database], or redis+sentinel://host:port,host:port/name[/database]",
        ],
    ),
    Case(
        "redis_password",
        HEAD + "redis: {url: 'redis://u:hun/ter2@h'}\n",
        [
            "emp.yaml:3:14: redis.url: expected a password whose special characters are percent-encoded: "
            "/ as %2F, # as %23, ? as %3F, @ as %40, : as %3A, % as %25",
            "    redis://[user:password@]host[:port][/database], rediss://…, unix:///socket[?db=database], or redis+sentinel://host:port,host:port/name[/database]",
        ],
    ),
    Case(
        "redis_socket",
        HEAD + "redis: {url: 'unix://run/r.sock', machine_url: 'unix:///r.sock'}\n"
        "machines: {m: {runtime: external, services: []}}\n",
        [
            "emp.yaml:3:14: redis.url: expected the whole path of a socket in the URL",
            "    redis://[user:password@]host[:port][/database], rediss://…, unix:///socket[?db=database], or redis+sentinel://host:port,host:port/name[/database]",
            "emp.yaml:3:48: redis.machine_url: machines in containers and boxes that join cannot reach a socket of "
            "this host",
            "    redis: {machine_url: redis://HOST:PORT}",
        ],
    ),
    Case(
        "redis_prefix",
        HEAD + "redis: {prefix: 'a b'}\n",
        [
            'emp.yaml:3:17: redis.prefix: expected at most 64 letters, digits and . _ : -, found "a b"',
        ],
    ),
    Case(
        "services_list",
        HEAD + "services: [a]\n",
        [
            "emp.yaml:3:11: services: expected a mapping of at most 256 service names, found a list",
        ],
    ),
    Case(
        "service_name",
        doc("  Big: {scale: once, command: x}\n"),
        [
            'emp.yaml:4:3: services.Big: expected a name of lower-case letters, digits and -, at most 63, not beginning with -, found "Big"',
        ],
    ),
    Case(
        "scale_missing",
        doc("  a: {command: x}\n"),
        [
            "emp.yaml:4:3: services.a.scale: missing; expected per_gpu, per_machine or once",
        ],
    ),
    Case(
        "scale_typo",
        doc("  a: {scale: per-gpu, command: x}\n"),
        [
            'emp.yaml:4:14: services.a.scale: expected per_gpu, per_machine or once, found "per-gpu"',
            '    did you mean "per_gpu"?',
        ],
    ),
    Case(
        "builtin_unknown",
        doc("  a: {scale: per_gpu, builtin: simulaton, port: 1}\n"),
        [
            'emp.yaml:4:32: services.a.builtin: expected simulation or comfyui, found "simulaton"',
            '    did you mean "simulation"?',
        ],
    ),
    Case(
        "connector_no_name",
        doc("  a: {scale: per_gpu, command: x, connector: Comfy UI}\n"),
        [
            "emp.yaml:4:46: services.a.connector: expected the name of a connector (simulation, comfyui, http, one from a "
            'package of yours, or none), found "Comfy UI"',
        ],
    ),
    Case(
        "connector_options_for_nothing",
        doc("  a: {scale: per_gpu, command: x, connector_options: {path: /x}}\n"),
        [
            "emp.yaml:4:35: services.a.connector_options: there is no connector that takes them",
            "    connector: http",
        ],
    ),
    Case(
        "http_without_its_path",
        doc("  a: {scale: per_gpu, command: x, port: 1, connector: http}\n"),
        [
            "emp.yaml:4:3: services.a: connector http: path is missing",
            "    the path that takes a job, for example /generate",
        ],
    ),
    Case(
        "connector_options_by_the_connectors_own_rules",
        doc(
            "  a: {scale: per_gpu, command: x, port: 1, connector: http, connector_options: {pth: /x}}\n"
            "  b: {scale: per_gpu, command: x, port: 2, connector: http, connector_options: {path: '${SECRET:-x}'}}\n"
            "  c: {scale: per_gpu, command: x, port: 3, connector: http, connector_options: {path: /x, mode: poll}}\n"
            "  d: {scale: per_gpu, command: x, port: 4, connector: comfyui, connector_options: {tidy: {keep: soon}}}\n"
            "  e: {scale: per_gpu, command: x, port: 5, connector: simulation, connector_options: {speed: 3}}\n"
        ),
        [
            "emp.yaml:4:81: services.a.connector_options.pth: is unknown",
            "    did you mean path?",
            "emp.yaml:5:81: services.b.connector_options.path: must begin with one /, found text from ${SECRET}",
            "    the host and port are those of the service",
            "emp.yaml:6:61: services.c.connector_options: connector http: id_field is missing",
            "    mode poll needs id_field, status_path, status_field, done",
            'emp.yaml:7:91: services.d.connector_options.tidy.keep: does not fit, found "soon"',
            "    write a duration, as 10m",
            "emp.yaml:8:87: services.e.connector_options.speed: is unknown: it takes no options",
            "    remove it",
        ],
    ),
    Case(
        "comfyui_pathless",
        doc(
            "  a: {scale: per_gpu, builtin: comfyui, port: 1}\n  b: {scale: per_gpu, builtin: comfyui, port: 1, path: ''}\n"
        ),
        [
            "emp.yaml:4:3: services.a.path: builtin comfyui needs the path of a checkout of ComfyUI",
            "    path: /opt/ComfyUI",
            "emp.yaml:5:50: services.b.path: builtin comfyui needs the path of a checkout of ComfyUI",
            "    path: /opt/ComfyUI",
        ],
    ),
    Case(
        "comfyui_paths",
        doc(
            "  a:\n    scale: per_gpu\n    builtin: comfyui\n    port: 1\n    path: ~/ComfyUI\n"
            "    python: venv/bin/python\n    models: [/srv/models, models, ~other/models]\n"
        ),
        [
            "emp.yaml:8:11: services.a.path: ~ is not replaced: a machine may be another user's, or elsewhere",
            "    ${HOME} stands for your own home",
            'emp.yaml:9:13: services.a.python: expected an absolute path, found "venv/bin/python"',
            "    a machine works in a folder of its own",
            'emp.yaml:10:27: services.a.models[1]: expected an absolute path, found "models"',
            "    a machine works in a folder of its own",
            "emp.yaml:10:35: services.a.models[2]: ~ is not replaced: a machine may be another user's, or elsewhere",
        ],
    ),
    Case(
        "comfyui_args",
        doc(
            "  a:\n    scale: per_gpu\n    builtin: comfyui\n    port: 1\n    path: /c\n    args:\n"
            "      - --cpu\n      - --port\n      - 9\n      - --out=/x\n      - --cuda-device=1\n      - --listen\n"
        ),
        [
            "emp.yaml:11:9: services.a.args[1]: --port is not for args: emp gives each slot a port: port of the service says the first",
            "    remove it",
            "emp.yaml:13:9: services.a.args[3]: --output-directory is not for args: emp gives each slot a folder of its own, below its machine's",
            "    remove it",
            "emp.yaml:14:9: services.a.args[4]: --cuda-device is not for args: emp gives each slot its device: gpus of the machine says which",
            "    remove it",
            "emp.yaml:15:9: services.a.args[5]: --listen is not for args: emp has it listen on loopback; publish of the machine opens it",
            "    remove it",
        ],
    ),
    Case(
        "comfyui_models",
        doc(
            "  a:\n    scale: per_gpu\n    builtin: comfyui\n    port: 1\n    path: /c\n    models:\n"
            "      x: {base_path: here, vae: v}\n      y: {vae: v}\n      z: {base_path: ~/m, vae: [v, w]}\n"
        ),
        [
            'emp.yaml:10:22: services.a.models.x.base_path: expected an absolute path, found "here"',
            "emp.yaml:11:16: services.a.models.y.vae: expected absolute paths: there is no base_path",
            "    base_path: /srv/models",
        ],
    ),
    Case(
        "comfyui_models_shape",
        doc("  a: {scale: per_gpu, builtin: comfyui, port: 1, path: /c, models: {x: {vae: 3}, y: /m}}\n"),
        [
            "emp.yaml:4:78: services.a.models.x.vae: expected a folder, or a list of folders, found 3",
            'emp.yaml:4:85: services.a.models.y: expected a mapping with base_path and folders by kind of model, found "/m"',
        ],
    ),
    Case(
        "comfyui_keys_elsewhere",
        doc("  a: {scale: per_gpu, command: x, path: /c, args: [--cpu]}\n"),
        [
            "emp.yaml:4:35: services.a.path: of no effect without builtin comfyui",
            "    builtin: comfyui, or remove it",
            "emp.yaml:4:45: services.a.args: of no effect without builtin comfyui",
            "    builtin: comfyui, or remove it",
        ],
    ),
    Case(
        "comfyui_health",
        doc("  a: {scale: per_gpu, builtin: comfyui, port: 1, path: /c, health: {startup: 1}}\n"),
        [
            "emp.yaml:4:78: services.a.health.startup: expected a duration above zero, such as 500ms, 2s, 5m or 1h, found 1",
            '    did you mean "1s"?',
        ],
    ),
    Case(
        "command_and_builtin",
        doc("  a: {scale: per_gpu, builtin: simulation, port: 1, command: x}\n"),
        [
            "emp.yaml:4:23: services.a.builtin: expected either command or builtin, found both",
            "    remove one",
        ],
    ),
    Case(
        "no_command",
        doc("  a: {scale: per_gpu}\n"),
        [
            "emp.yaml:4:3: services.a: expected a command or a builtin, found neither",
            "    builtin: simulation",
        ],
    ),
    Case(
        "command_quote",
        doc('  a: {scale: per_gpu, command: "x \'y"}\n'),
        [
            "emp.yaml:4:32: services.a.command: a quote is never closed",
            "    close it, or write the command as a list: [program, argument]",
        ],
    ),
    Case(
        "command_empty",
        doc("  a: {scale: per_gpu, command: ''}\n"),
        [
            "emp.yaml:4:32: services.a.command: expected a list of at least one word, found empty text",
        ],
    ),
    Case(
        "command_nested",
        doc("  a: {scale: per_gpu, command: [x, [y]]}\n"),
        [
            "emp.yaml:4:36: services.a.command[1]: expected text, found a list",
        ],
    ),
    Case(
        "env_null",
        doc("  a: {scale: per_gpu, command: x, env: {A: }}\n"),
        [
            "emp.yaml:4:44: services.a.env.A: expected text, {env: NAME} or {file: PATH}, found nothing",
            '    write "" for empty text',
        ],
    ),
    Case(
        "env_list",
        doc("  a: {scale: per_gpu, command: x, env: {A: [hunter2]}}\n"),
        [
            "emp.yaml:4:44: services.a.env.A: expected text, {env: NAME} or {file: PATH}, found a list",
        ],
    ),
    Case(
        "env_name",
        doc("  a: {scale: per_gpu, command: x, env: {1A: b}}\n"),
        [
            'emp.yaml:4:41: services.a.env.1A: expected a variable\'s name: letters, digits and _, not beginning with a digit, found "1A"',
        ],
    ),
    Case(
        "env_secret",
        doc("  a: {scale: per_gpu, command: x, env: {A: {env: hunter-2}}}\n"),
        [
            "emp.yaml:4:50: services.a.env.A.env: expected the name of an environment variable, found text",
        ],
    ),
    Case(
        "health_missing",
        doc("  a: {scale: per_gpu, command: x, port: 1, health: {}}\n"),
        [
            "emp.yaml:4:52: services.a.health: expected a mapping with http, tcp or command, and interval, timeout,"
            " failures and startup, found an empty mapping",
        ],
    ),
    Case(
        "health_path",
        doc("  a: {scale: per_gpu, command: x, port: 1, health: {http: x}}\n"),
        [
            'emp.yaml:4:59: services.a.health.http: expected a path that begins with /, found "x"',
        ],
    ),
    Case(
        "health_two",
        doc("  a: {scale: per_gpu, command: x, port: 1, health: {http: /, tcp: 5432}}\n"),
        [
            "emp.yaml:4:62: services.a.health.tcp: expected one of http, tcp and command, found http and tcp",
            "    keep the one that tells most",
        ],
    ),
    Case(
        "health_tcp",
        doc("  a: {scale: per_gpu, command: x, port: 1, health: {tcp: '/run/socket'}}\n"),
        [
            'emp.yaml:4:58: services.a.health.tcp: expected a port, or HOST:PORT, found "/run/socket"',
        ],
    ),
    Case(
        "health_tcp_port",
        doc("  a: {scale: per_gpu, command: x, health: {tcp: 'db:70000'}}\n"),
        [
            'emp.yaml:4:49: services.a.health.tcp: expected a port from 1 to 65535, found "70000"',
        ],
    ),
    Case(
        "health_unit",
        doc("  a: {scale: per_gpu, command: x, port: 1, health: {http: /, interval: 2}}\n"),
        [
            "emp.yaml:4:72: services.a.health.interval: expected a duration above zero, such as 500ms, 2s, 5m or 1h, found 2",
            '    did you mean "2s"?',
        ],
    ),
    Case(
        "health_zero",
        doc("  a: {scale: per_gpu, command: x, port: 1, health: {http: /, timeout: 0s}}\n"),
        [
            'emp.yaml:4:71: services.a.health.timeout: expected a duration above zero, such as 500ms, 2s, 5m or 1h, found "0s"',
        ],
    ),
    Case(
        "health_portless",
        doc("  a: {scale: per_gpu, command: x, health: {http: /}}\n"),
        [
            "emp.yaml:4:35: services.a.health: this health check needs the service's port",
            "    port: 8188",
        ],
    ),
    Case(
        "builtin_portless",
        doc("  a: {scale: per_gpu, builtin: simulation}\n"),
        [
            "emp.yaml:4:3: services.a: builtin simulation needs a port to listen on",
            "    port: 8188",
        ],
    ),
    Case(
        "once_extras",
        doc("  a: {scale: once, builtin: simulation, port: 1, health: {http: /}}\n"),
        [
            "emp.yaml:4:20: services.a.builtin: a service with scale once runs to its end: it has no builtin",
            "    remove it, or choose scale per_machine",
            "emp.yaml:4:41: services.a.port: a service with scale once runs to its end: it has no port",
            "    remove it, or choose scale per_machine",
            "emp.yaml:4:50: services.a.health: a service with scale once runs to its end: it has no health",
            "    remove it, or choose scale per_machine",
        ],
    ),
    Case(
        "stop_signal",
        doc("  a: {scale: per_gpu, command: x, stop: {signal: SIGTERM}}\n"),
        [
            'emp.yaml:4:50: services.a.stop.signal: expected TERM, INT, QUIT, HUP, USR1, USR2 or KILL, found "SIGTERM"',
            '    did you mean "TERM"?',
        ],
    ),
    Case(
        "depends_unknown",
        doc("  a: {scale: per_gpu, command: x, depends_on: [bb]}\n  b: {scale: per_gpu, command: x}\n"),
        [
            'emp.yaml:4:48: services.a.depends_on[0]: no service is called "bb"',
            '    did you mean "b"?',
        ],
    ),
    Case(
        "depends_self",
        doc("  a: {scale: per_gpu, command: x, depends_on: [a]}\n"),
        [
            "emp.yaml:4:47: services.a.depends_on: services wait for each other: a → a",
        ],
    ),
    Case(
        "depends_cycle",
        doc(
            "  a: {scale: per_gpu, command: x, depends_on: [b]}\n  b: {scale: per_gpu, command: x, depends_on: [c]}\n  c: {scale: per_gpu, command: x, depends_on: [a]}\n"
        ),
        [
            "emp.yaml:4:47: services.a.depends_on: services wait for each other: a → b → c → a",
        ],
    ),
    Case(
        "reserved_service",
        doc("  redis-worker: {scale: per_gpu, command: x}\n"),
        [
            'emp.yaml:4:3: services.redis-worker: "redis-worker" is a program of emp\'s own',
            "    choose another name",
        ],
    ),
    Case(
        "reserved_suffix",
        doc("  sim-gpu0: {scale: per_machine, command: x}\n"),
        [
            "emp.yaml:4:3: services.sim-gpu0: names that end in -gpuN or -installer belong to the programs of other services",
            "    choose another name",
        ],
    ),
    # machines
    Case(
        "machine_null",
        doc("", "  m:\n"),
        [
            "emp.yaml:4:5: machines.m: expected a mapping that describes a machine, found nothing",
            "    give it a value, or remove the key",
        ],
    ),
    Case(
        "machine_name",
        doc("", "  m.1: {services: []}\n"),
        [
            'emp.yaml:4:3: machines."m.1": expected a name of lower-case letters, digits and -, at most 63, not beginning with -, found "m.1"',
        ],
    ),
    Case(
        "reserved_machine",
        doc("", "  unknown: {services: []}\n"),
        [
            'emp.yaml:4:3: machines.unknown: "unknown" has a meaning of its own',
            "    choose another name",
        ],
    ),
    Case(
        "num_gpus_text",
        doc("", "  m: {services: [], num_gpus: two}\n"),
        [
            'emp.yaml:4:31: machines.m.num_gpus: expected an integer from 0 to 64, found "two"',
        ],
    ),
    Case(
        "num_gpus_negative",
        doc("", "  m: {services: [], num_gpus: -1}\n"),
        [
            "emp.yaml:4:31: machines.m.num_gpus: expected an integer from 0 to 64, found -1",
        ],
    ),
    Case(
        "services_missing",
        doc(SIM, "  m: {num_gpus: 1}\n"),
        [
            "emp.yaml:6:3: machines.m.services: missing; expected a list of service names, here or in defaults",
            "    [] is a machine with only workers",
        ],
    ),
    Case(
        "service_unknown",
        doc(SIM, "  m: {services: [sin]}\n"),
        [
            'emp.yaml:6:18: machines.m.services[0]: no service is called "sin"',
            '    did you mean "sim"?',
        ],
    ),
    Case(
        "service_unknown_beside_error",
        doc(SIM, "  m: {services: [sin], num_gpus: x}\n"),
        [
            'emp.yaml:6:18: machines.m.services[0]: no service is called "sin"',
            '    did you mean "sim"?',
            'emp.yaml:6:34: machines.m.num_gpus: expected an integer from 0 to 64, found "x"',
        ],
    ),
    Case(
        "service_twice",
        doc(SIM, "  m: {services: [sim, sim]}\n"),
        [
            'emp.yaml:6:23: machines.m.services[1]: "sim" stands here twice',
        ],
    ),
    Case(
        "default_service_unknown",
        doc(SIM, "  m: {}\n", rest="defaults: {services: [sin]}\n"),
        [
            'emp.yaml:3:23: defaults.services[0]: no service is called "sin"',
            '    did you mean "sim"?',
        ],
    ),
    Case(
        "broken_defaults",
        doc(SIM, "  m: {}\n", rest="defaults: {services: sim}\n"),
        [
            'emp.yaml:3:22: defaults.services: expected a list of service names, found "sim"',
        ],
    ),
    Case(
        "depends_not_here",
        doc(
            "  a: {scale: per_gpu, command: x, depends_on: [b]}\n  b: {scale: per_gpu, command: x}\n",
            "  m: {services: [a]}\n",
        ),
        [
            "emp.yaml:7:18: machines.m.services[0]: a depends on b, not run by this machine",
            "    add b to services",
        ],
    ),
    Case(
        "gpu_kind",
        doc("", "  m: {services: [], gpus: amd}\n"),
        [
            'emp.yaml:4:27: machines.m.gpus: expected none, nvidia, or a mapping with kind and ids, found "amd"',
        ],
    ),
    Case(
        "gpu_kind_key",
        doc("", "  m: {services: [], gpus: {kind: amd}}\n"),
        [
            'emp.yaml:4:34: machines.m.gpus.kind: expected none or nvidia, found "amd"',
        ],
    ),
    Case(
        "gpu_ids_none",
        doc("", "  m: {services: [], gpus: {ids: [0]}}\n"),
        [
            "emp.yaml:4:33: machines.m.gpus.ids: device ids need kind: nvidia",
            "    gpus: {kind: nvidia, ids: [...]}",
        ],
    ),
    Case(
        "gpu_ids_count",
        doc("", "  m: {services: [], num_gpus: 2, gpus: {kind: nvidia, ids: [0, 1, 2]}}\n"),
        [
            "emp.yaml:4:60: machines.m.gpus.ids: expected 2 ids, one for each of num_gpus, found 3",
        ],
    ),
    Case(
        "gpu_ids_twice",
        doc("", "  m: {services: [], num_gpus: 2, gpus: {kind: nvidia, ids: [0, 0]}}\n"),
        [
            'emp.yaml:4:64: machines.m.gpus.ids[1]: "0" stands here twice',
        ],
    ),
    Case(
        "runtime",
        doc("", "  m: {services: [], runtime: docker}\n"),
        [
            'emp.yaml:4:30: machines.m.runtime: expected process, compose or external, found "docker"',
        ],
    ),
    Case(
        "host_process",
        doc("", "  m: {services: [], host: far, image: x}\n"),
        [
            "emp.yaml:4:21: machines.m.host: of no effect with runtime process",
            "    runtime: compose",
            "emp.yaml:4:32: machines.m.image: of no effect with runtime process",
            "    runtime: compose",
        ],
    ),
    Case(
        "container_keys_on_a_process",
        doc("", "  m:\n    services: []\n    publish: [x]\n    volumes: ['/a:/b']\n    limits: {cpus: 1}\n"),
        [
            "emp.yaml:6:5: machines.m.publish: of no effect with runtime process",
            "    runtime: compose",
            "emp.yaml:7:5: machines.m.volumes: of no effect with runtime process",
            "    runtime: compose",
            "emp.yaml:8:5: machines.m.limits: of no effect with runtime process",
            "    runtime: compose",
        ],
    ),
    Case(
        "host_unknown",
        doc("", "  m: {runtime: compose, services: [], host: gpu-b}\n", "hosts: {gpu-a: {docker: 'ssh://a'}}\n"),
        [
            'emp.yaml:5:45: machines.m.host: no host is called "gpu-b"',
            '    did you mean "gpu-a"?',
        ],
    ),
    Case(
        "host_broken_and_named",
        doc("", "  m: {runtime: compose, services: [], host: a}\n", "hosts: {a: {docker: 'http://u:hunter2@a'}}\n"),
        [
            "emp.yaml:3:21: hosts.a.docker: expected a URL that begins with unix:///, ssh:// or tcp://, "
            "found a URL that begins with http://",
        ],
    ),
    Case(
        "hosts_addresses",
        HEAD
        + "hosts:\n  a: {docker: 'ssh://u:hunter2@a'}\n  b: {docker: 'tcp://b:99999'}\n  c: {docker: 'ssh://-oX@c'}\n"
        + "  d: {docker: 'tcp://d:2375'}\n  e: {docker: 'ssh://e', tls: {ca: a, cert: b, key: c}}\n"
        + "  local: {docker: 'ssh://f'}\n  g: {docker: 'ssh://g/path'}\n  h: {docker: 'ssh://'}\n  i: {docker: 'tcp://[x'}\n"
        + "  j: {docker: 'tcp://u@j:1'}\n",
        [
            "emp.yaml:4:15: hosts.a.docker: expected a URL without password",
            "    unix:///SOCKET, ssh://user@host[:port] or tcp://host:port with tls",
            "emp.yaml:5:15: hosts.b.docker: expected a port from 1 to 65535 and a plain host in the URL",
            "    unix:///SOCKET, ssh://user@host[:port] or tcp://host:port with tls",
            "emp.yaml:6:15: hosts.c.docker: expected a user and a host that do not begin with -",
            "    unix:///SOCKET, ssh://user@host[:port] or tcp://host:port with tls",
            "emp.yaml:7:15: hosts.d.docker: without tls, whoever reaches this engine commands its host as root",
            "    add tls: {ca: FILE, cert: FILE, key: FILE}, or use ssh://user@host",
            "emp.yaml:8:26: hosts.e.tls: only a tcp:// address has tls",
            "    remove it",
            "emp.yaml:9:19: hosts.local.docker: local is the engine of this host, reached by its socket",
            "    docker: unix:///SOCKET, or give that host another name",
            "emp.yaml:10:15: hosts.g.docker: expected nothing after the host and its port",
            "    unix:///SOCKET, ssh://user@host[:port] or tcp://host:port with tls",
            "emp.yaml:11:15: hosts.h.docker: expected a URL that begins with unix:///, ssh:// or tcp://, "
            "found a URL that begins with ssh://",
            "emp.yaml:12:15: hosts.i.docker: expected a port from 1 to 65535 and a plain host in the URL",
            "    unix:///SOCKET, ssh://user@host[:port] or tcp://host:port with tls",
            "emp.yaml:13:15: hosts.j.docker: expected no user in a tcp:// URL",
            "    unix:///SOCKET, ssh://user@host[:port] or tcp://host:port with tls",
        ],
    ),
    Case(
        "publish",
        doc(
            SIM + "  mute: {scale: per_machine, command: x}\n  once: {scale: once, command: x}\n",
            "  m: {runtime: compose, services: [sim, mute, once], publish: [sin, mute, once]}\n",
        ),
        [
            'emp.yaml:8:64: machines.m.publish[0]: this machine runs no service "sin"',
            '    did you mean "sim"?',
            "emp.yaml:8:69: machines.m.publish[1]: service mute has no port to publish",
            "    give it a port, or leave mute out",
            "emp.yaml:8:75: machines.m.publish[2]: service once has no port to publish",
            "    give it a port, or leave once out",
        ],
    ),
    Case(
        "published_ports_clash_on_one_host",
        doc(
            SIM,
            "  m: {services: [sim]}\n  n: {runtime: compose, services: [sim], publish: [sim]}\n"
            "  o: {runtime: compose, services: [sim], host: a, publish: [sim]}\n"
            "  p: {runtime: compose, services: [sim], host: b, publish: [sim], ports: {sim: 8187}, num_gpus: 2}\n",
            "redis: {url: 'redis://hub'}\njobs: {artifacts: 's3://b/f'}\n"
            "hosts: {a: {docker: 'ssh://x'}, b: {docker: 'ssh://x'}}\n",
        ),
        [
            "emp.yaml:10:3: machines.n: port 8188 of sim of n is taken by sim of m",
            "    give this machine another: ports: {sim: 8288}",
            "emp.yaml:12:75: machines.p.ports.sim: port 8188 of sim of p is taken by sim of o",
            "    give this machine another: ports: {sim: 8287}",
        ],
    ),
    Case(
        "published_port_of_the_api",
        doc(
            "  a: {scale: per_machine, command: x, port: 3331}\n",
            "  m: {runtime: compose, services: [a], publish: [a]}\n",
        ),
        [
            "emp.yaml:6:3: machines.m: port 3331 of a of m is taken by the api",
            "    give this machine another: ports: {a: 3431}",
        ],
    ),
    Case(
        "volumes",
        doc(
            "",
            "  m:\n    runtime: compose\n    services: []\n    volumes:\n"
            "      - models:/models\n      - /a:/\n      - /a:/b:rx\n      - /a:b\n      - /a:/b:ro:z\n",
        ),
        [
            'emp.yaml:8:9: machines.m.volumes[0]: expected /FOLDER:/FOLDER or /FOLDER:/FOLDER:ro, found "models:/models"',
            'emp.yaml:9:9: machines.m.volumes[1]: expected /FOLDER:/FOLDER or /FOLDER:/FOLDER:ro, found "/a:/"',
            'emp.yaml:10:9: machines.m.volumes[2]: expected /FOLDER:/FOLDER or /FOLDER:/FOLDER:ro, found "/a:/b:rx"',
            'emp.yaml:11:9: machines.m.volumes[3]: expected /FOLDER:/FOLDER or /FOLDER:/FOLDER:ro, found "/a:b"',
            'emp.yaml:12:9: machines.m.volumes[4]: expected /FOLDER:/FOLDER or /FOLDER:/FOLDER:ro, found "/a:/b:ro:z"',
        ],
    ),
    Case(
        "volumes_targets",
        doc(
            "",
            "  m:\n    runtime: compose\n    services: []\n    volumes:\n"
            "      - /a:/var//lib/emp/data\n      - /a://\n      - /a:/tmp\n      - /a:/b/../c\n"
            "      - /a:/d\n      - /b:/d/\n      - /a:/var\n      - /a:/variety\n",
        ),
        [
            'emp.yaml:8:9: machines.m.volumes[0]: "/var//lib/emp/data" in the container is not free for a folder of the host',
            FREE,
            'emp.yaml:9:9: machines.m.volumes[1]: "//" in the container is not free for a folder of the host',
            FREE,
            'emp.yaml:10:9: machines.m.volumes[2]: "/tmp" in the container is not free for a folder of the host',
            FREE,
            "emp.yaml:11:9: machines.m.volumes[3]: expected paths without . and ..",
            'emp.yaml:13:9: machines.m.volumes[5]: "/d/" in the container stands here twice',
            'emp.yaml:14:9: machines.m.volumes[6]: "/var" in the container is not free for a folder of the host',
            FREE,
        ],
    ),
    Case(
        "gpu_ids_of_two_kinds",
        doc("", "  m: {runtime: compose, services: [], num_gpus: 2, gpus: {kind: nvidia, ids: [1, GPU-a]}}\n"),
        [
            "emp.yaml:4:78: machines.m.gpus.ids: expected only indices or only UUIDs: a container numbers its devices anew",
        ],
    ),
    Case(
        "machines_elsewhere",
        doc("", "  m: {runtime: compose, services: [], host: a}\n", "hosts: {a: {docker: 'ssh://a'}}\n"),
        [
            "emp.yaml:5:45: machines.m.host: a is another host, and cannot reach the embedded Redis",
            "    redis: {machine_url: redis://HOST:PORT}",
            "emp.yaml:5:45: machines.m.host: a is another host, and does not see the artifact store: files of jobs go "
            "through the API, and api.machine_url does not say how it reaches that",
            WAY_TO_API,
        ],
    ),
    Case(
        "machines_elsewhere_and_an_api_of_their_own",
        doc(
            "",
            "  m: {runtime: compose, services: [], host: a}\n",
            "hosts: {a: {docker: 'ssh://a'}}\njobs: {artifacts: 'file:///srv/store'}\n"
            "redis: {url: 'redis://hub'}\napi: {machine_url: 'http://localhost:3331'}\n",
        ),
        [
            "emp.yaml:8:45: machines.m.host: a is another host, and does not see the artifact store: files of jobs go "
            "through the API, and http://localhost:3331 is this host's own",
            WAY_TO_API,
        ],
    ),
    Case(
        "machines_elsewhere_and_loopback",
        doc(
            "",
            "  m: {runtime: compose, services: [], host: a}\n",
            "hosts: {a: {docker: 'ssh://a'}}\njobs: {artifacts: 's3://b/f'}\n"
            "redis: {url: 'redis://hub', machine_url: 'redis://:hunter2@127.0.0.1:1'}\n",
        ),
        [
            "emp.yaml:7:45: machines.m.host: a is another host, and cannot reach a Redis on this host's loopback",
            "    redis: {machine_url: redis://HOST:PORT}",
        ],
    ),
    Case(
        "control_images_of_a_process",
        HEAD + "control: {image: x, redis_image: y}\n",
        [
            "emp.yaml:3:11: control.image: of no effect with runtime process",
            "    runtime: compose",
            "emp.yaml:3:21: control.redis_image: of no effect with runtime process",
            "    runtime: compose",
        ],
    ),
    Case(
        "control_in_containers",
        doc(
            "",
            "  m: {services: [], runtime: process}\n  n: {services: [], runtime: compose, host: a}\n"
            "  o: {services: [], runtime: compose, host: b}\n  p: {services: []}\n  q: {services: [], runtime: compose}\n",
            "control: {runtime: compose}\nredis: {url: 'redis://hub'}\njobs: {artifacts: 's3://b/f'}\nhosts:\n"
            "  a: {docker: 'ssh://a'}\n  b: {docker: 'tcp://b', tls: {ca: /etc/ca, cert: ../c, key: tls/key}}\n"
            "  unused: {docker: 'ssh://c'}\n",
        ),
        [
            "emp.yaml:7:15: hosts.a.docker: a control plane in a container (control.runtime) has no keys for ssh",
            "    docker: tcp://HOST:2376 with tls",
            "emp.yaml:8:36: hosts.b.tls.ca: a control plane in a container (control.runtime) sees only the folder of emp.yaml",
            "    put the file there, and write its relative path",
            "emp.yaml:8:51: hosts.b.tls.cert: a control plane in a container (control.runtime) sees only the folder of emp.yaml",
            "    put the file there, and write its relative path",
            "emp.yaml:11:30: machines.m.runtime: a control plane in a container (control.runtime) cannot start processes on this host",
            "    runtime: compose, or leave control.runtime out",
            "emp.yaml:14:3: machines.p.runtime: a control plane in a container (control.runtime) cannot start processes on this host",
            "    runtime: compose, or leave control.runtime out",
        ],
    ),
    Case(
        "ports_unknown",
        doc(SIM, "  m: {services: [sim], ports: {sin: 1}}\n"),
        [
            "emp.yaml:6:32: machines.m.ports.sin: this machine runs no such service",
            '    did you mean "sim"?',
        ],
    ),
    Case(
        "duplicate_replica",
        doc("", "  m: {services: [], replicas: 2}\n  m-2: {services: []}\n"),
        [
            "emp.yaml:5:3: machines.m-2: machine m-2 is also described by m",
            "    rename one: replicas of NAME are called NAME-1, NAME-2, …",
        ],
    ),
    Case(
        "replica_name",
        doc("", "  " + "m" * 62 + ": {services: [], replicas: 2}\n"),
        [
            "emp.yaml:4:3: machines.mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm: the name of its replica mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm-1 is longer than 63",
        ],
    ),
    Case(
        "too_many",
        doc("", "  a: {services: [], replicas: 9999, runtime: external}\n  b: {services: [], replicas: 2}\n"),
        [
            "emp.yaml:5:3: machines.b: with this the fleet has 10001 machines; emp takes 10000",
        ],
    ),
    Case(
        "drain_unit",
        doc("", "  m: {services: [], worker: {drain_timeout: 5}}\n"),
        [
            "emp.yaml:4:45: machines.m.worker.drain_timeout: expected a duration, such as 0s, 500ms, 2s, 5m or 1h, found 5",
            '    did you mean "5s"?',
        ],
    ),
    # ports
    Case(
        "port_range",
        doc("  a: {scale: per_gpu, builtin: simulation, port: 65535}\n", "  m: {services: [a], num_gpus: 2}\n"),
        [
            "emp.yaml:6:3: machines.m: a of m needs port 65536, above 65535",
            "    take a lower port",
        ],
    ),
    Case(
        "port_range_replicas",
        doc(SIM, "  m: {services: [sim], replicas: 600}\n"),
        [
            "emp.yaml:6:3: machines.m: sim of m-575 needs port 65588, above 65535",
            "    take a lower port, or fewer replicas: each adds 100",
        ],
    ),
    Case(
        "port_slots",
        doc(
            "  a: {scale: per_gpu, builtin: simulation, port: 8188}\n  b: {scale: per_machine, builtin: simulation, port: 8190}\n",
            "  m: {services: [a, b], num_gpus: 3}\n",
        ),
        [
            "emp.yaml:7:3: machines.m: port 8190 of b of m is taken by a of m",
            "    give this machine another: ports: {b: 8290}",
        ],
    ),
    Case(
        "port_two_machines",
        doc(SIM, "  m: {services: [sim]}\n  n: {services: [sim]}\n"),
        [
            "emp.yaml:7:3: machines.n: port 8188 of sim of n is taken by sim of m",
            "    give this machine another: ports: {sim: 8288}",
        ],
    ),
    Case(
        "port_override",
        doc(SIM, "  m: {services: [sim]}\n  n:\n    services: [sim]\n    ports:\n      sim: 8188\n"),
        [
            "emp.yaml:10:7: machines.n.ports.sim: port 8188 of sim of n is taken by sim of m",
            "    give this machine another: ports: {sim: 8288}",
        ],
    ),
    Case(
        "port_replicas",
        doc(
            SIM + "  tim: {scale: per_gpu, builtin: simulation, port: 8288}\n",
            "  m: {services: [sim, tim], replicas: 2}\n",
        ),
        [
            "emp.yaml:7:3: machines.m: port 8288 of sim of m-2 is taken by tim of m-1",
            "    give this machine another: ports: {sim: 8388}",
        ],
    ),
    Case(
        "port_api",
        doc("  a: {scale: per_gpu, builtin: simulation, port: 3331}\n", "  m: {services: [a]}\n"),
        [
            "emp.yaml:6:3: machines.m: port 3331 of a of m is taken by the api",
            "    give this machine another: ports: {a: 3431}",
        ],
    ),
    Case(
        "port_embedded",
        doc("  a: {scale: per_gpu, builtin: simulation, port: 6380}\n", "  m: {services: [a]}\n"),
        [
            "emp.yaml:6:3: machines.m: port 6380 of a of m is taken by the embedded Redis",
            "    give this machine another: ports: {a: 6480}",
        ],
    ),
    Case(
        "port_monitor_api",
        HEAD + "monitor: {port: 3331}\n",
        [
            "emp.yaml:3:11: monitor.port: port 3331 of the monitor is taken by the api",
            "    choose another port",
        ],
    ),
    Case(
        "port_health",
        doc(SIM, "  m: {services: [sim], health_port: 8188}\n"),
        [
            "emp.yaml:6:24: machines.m.health_port: port 8188 of the health server of m is taken by sim of m",
            "    choose another port",
        ],
    ),
    # endpoints
    Case(
        "api_open",
        HEAD + "api: {host: 0.0.0.0}\n",
        [
            'emp.yaml:3:13: api.host: "0.0.0.0" can be reached from elsewhere, so anyone there could command the fleet',
            "    listen on 127.0.0.1, or require a token: api: {token: {env: EMP_TOKEN}}",
        ],
    ),
    Case(
        "monitor_open",
        HEAD + "monitor: {host: example.com}\n",
        [
            'emp.yaml:3:17: monitor.host: "example.com" can be reached from elsewhere, so anyone there could command the fleet',
            "    listen on 127.0.0.1, or require a token: monitor: {token: {env: EMP_TOKEN}}",
        ],
    ),
    # reconcile
    Case(
        "reconcile",
        HEAD + "reconcile: {interval: 0s, stale_after: 10, max_unavailable: 0, prune: yes}\n",
        [
            'emp.yaml:3:23: reconcile.interval: expected a duration above zero, such as 500ms, 2s, 5m or 1h, found "0s"',
            "emp.yaml:3:40: reconcile.stale_after: expected a duration above zero, such as 500ms, 2s, 5m or 1h, found 10",
            '    did you mean "10s"?',
            "emp.yaml:3:61: reconcile.max_unavailable: expected an integer from 1 to 10000, or a per cent such as 25%, found 0",
            'emp.yaml:3:71: reconcile.prune: expected true or false, found "yes"',
        ],
    ),
    Case(
        "per cent",
        HEAD + "reconcile: {max_unavailable: 0%}\n",
        [
            "emp.yaml:3:30: reconcile.max_unavailable: expected an integer from 1 to 10000, or a per cent such as 25%, "
            'found "0%"',
        ],
    ),
    # interpolation
    Case(
        "unset",
        HEAD + "redis: {url: '${NOPE}'}\n",
        [
            "emp.yaml:3:14: redis.url: ${NOPE} is not set",
            "    set it in the environment or in .env, or write ${NOPE:-default}",
        ],
    ),
    Case(
        "unset_near",
        HEAD + "redis: {url: '${HUNTER_UR}'}\n",
        [
            "emp.yaml:3:14: redis.url: ${HUNTER_UR} is not set",
            '    did you mean "HUNTER_URL"? set it in the environment or in .env, or write ${HUNTER_UR:-default}',
        ],
    ),
    Case(
        "required",
        HEAD + "redis: {url: '${NOPE:?set it in the vault}'}\n",
        [
            "emp.yaml:3:14: redis.url: ${NOPE} is not set: set it in the vault",
        ],
    ),
    Case(
        "required_empty",
        HEAD + "redis: {url: '${EMPTY:?}'}\n",
        [
            "emp.yaml:3:14: redis.url: ${EMPTY} is not set",
        ],
    ),
    Case(
        "unclosed",
        HEAD + "redis: {url: '${NOPE'}\n",
        [
            "emp.yaml:3:14: redis.url: expected }, :- or :? after ${NOPE",
            "    write ${NAME}, ${NAME:-default} or ${NAME:?message}; $${ stands for a plain ${",
        ],
    ),
    Case(
        "no_name",
        HEAD + "redis: {url: '${}'}\n",
        [
            "emp.yaml:3:14: redis.url: expected a variable's name after ${",
            "    write ${NAME}, ${NAME:-default} or ${NAME:?message}; $${ stands for a plain ${",
        ],
    ),
    Case(
        "operator",
        HEAD + "redis: {url: '${NOPE-x}'}\n",
        [
            "emp.yaml:3:14: redis.url: expected }, :- or :? after ${NOPE",
            "    write ${NAME}, ${NAME:-default} or ${NAME:?message}; $${ stands for a plain ${",
        ],
    ),
    Case(
        "runtime_elsewhere",
        doc("", "  m: {services: [], env: {A: '${port}'}}\n"),
        [
            "emp.yaml:4:30: machines.m.env.A: ${port} has no value here",
            "    it is known inside a service's command, args, env, cwd, install and health",
        ],
    ),
    Case(
        "runtime_escaped",
        doc("  a: {scale: per_gpu, command: 'x $${port}'}\n"),
        [
            "emp.yaml:4:32: services.a.command: a plain ${port} cannot be written here",
            "    emp replaces it for each program",
        ],
    ),
    Case(
        "runtime_from_value",
        doc("  a: {scale: per_gpu, command: 'x ${SLY}'}\n"),
        [
            "emp.yaml:4:32: services.a.command: a plain ${port} cannot be written here",
            "    emp replaces it for each program",
        ],
    ),
    Case(
        "from_environment",
        doc("", "  m: {services: [], num_gpus: '${HUNTER}', labels: {a: [x]}}\n"),
        [
            "emp.yaml:4:31: machines.m.num_gpus: expected an integer from 0 to 64, found text from ${HUNTER}",
            "emp.yaml:4:56: machines.m.labels.a: expected text, found a list",
        ],
    ),
    Case(
        "from_environment_plain",
        doc("", "  m:\n    services: []\n    num_gpus: ${HUNTER}\n    replicas: ${EMPTY}\n    health_port: ${MINUS}\n"),
        [
            "emp.yaml:6:15: machines.m.num_gpus: expected an integer from 0 to 64, found text from ${HUNTER}",
            "emp.yaml:7:15: machines.m.replicas: expected an integer from 0 to 10000, found empty text from ${EMPTY}",
            "emp.yaml:8:18: machines.m.health_port: expected a port from 0 to 65535, found an integer from ${MINUS}",
        ],
    ),
    Case(
        "from_environment_quoted",
        doc("", "  m: {services: [], num_gpus: '${TWO}'}\n"),
        [
            "emp.yaml:4:31: machines.m.num_gpus: expected an integer from 0 to 64, found text from ${TWO}",
            "    remove the quotes; where { } or [ ] need them, write this part with one line each",
        ],
    ),
    Case(
        "not_utf8",
        HEAD + "redis: {url: '${RAW}'}\n",
        [
            "emp.yaml:3:14: redis.url: the value of ${RAW} is not UTF-8 text",
        ],
    ),
    Case(
        "pool_of_a_swarm",
        doc("  a: {scale: per_gpu, command: x}\n", "  m: {services: [a], num_gpus: 1}\n")
        + "pools:\n"
        + "  p: {services: [a], size: 2, provider: swarm, provider_options: {host: gpus}}\n"
        + "  q: {services: [a], size: 2, provider: swarm, provider_options: {constraint: x}}\n",
        [
            'emp.yaml:8:73: pools.p.provider_options.host: expected the name of one of hosts, found "gpus"',
            "    name it in `hosts:`",
            "emp.yaml:9:67: pools.q.provider_options.constraint: is unknown",
            "    did you mean constraints?",
        ],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_problems_in_full(case: Case) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(case.text, file="emp.yaml", environ=ENVIRON)
    told = "\n".join(problem.text for problem in caught.value.problems).split("\n")
    assert told == case.told
    assert caught.value.exit_code == Exit.USAGE
    assert "hunter" not in str(caught.value).replace("HUNTER", "").replace("did you mean", "")


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    text = doc(
        '  a: {scale: per_gp, command: x}\n  b: {scale: per_gpu, command: "x ${NOPE} \'y"}\n',
        "  m: {services: [c], num_gpus: two}\n",
        rest="apu: {}\nname: g\n",
    )
    with pytest.raises(ConfigError) as caught:
        load_text(text, file="emp.yaml", environ={})
    places = [(p.line, p.path) for p in caught.value.problems]
    assert places == [
        (3, "apu"),
        (4, "name"),
        (6, "services.a.scale"),
        (7, "services.b.command"),
        (9, "machines.m.services[0]"),
        (9, "machines.m.num_gpus"),
    ]
    assert str(caught.value).startswith("6 problems\nemp.yaml:3:1: apu: unknown key\n")


def test_a_hopeless_file_is_not_listed_to_its_end() -> None:
    text = HEAD + "".join(f"key{i}: 1\n" for i in range(5000))
    with pytest.raises(ConfigError) as caught:
        load_text(text, file="emp.yaml", environ={})
    assert len(caught.value.problems) == 200
    assert str(caught.value).startswith("200 or more problems\n")


@pytest.mark.parametrize(
    "text",
    [
        # doubles at every line
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)),
        # the same with mappings
        "a0: &a0 {k: v}\n" + "".join(f"a{i}: &a{i} {{k: *a{i - 1}, l: *a{i - 1}}}\n" for i in range(1, 31)),
        # one big anchor, used over and over
        "a: &a [" + "x, " * 5000 + "x]\nb: [" + "*a, " * 5000 + "*a]\n",
    ],
    ids=["lists", "mappings", "flat"],
)
@pytest.mark.timeout(5)
def test_alias_bombs_are_refused_quickly(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(text, file="emp.yaml", environ={})
    (problem,) = caught.value.problems
    assert problem.message == "aliases blow this file up beyond reason"
    assert problem.line > 1


@pytest.mark.parametrize("opening", ["[", "- ", "{a: ", "? ", "a: &a\n"])
@pytest.mark.timeout(20)
def test_a_million_openings_do_not_crash_the_process(opening: str) -> None:
    with pytest.raises(ConfigError):
        load_text(opening * 1_000_000, file="emp.yaml", environ={})


@pytest.mark.timeout(10)
def test_a_chain_of_aliases_cannot_nest_deeper_than_the_text() -> None:
    text = HEAD + "x-0: &a0 [x]\n" + "".join(f"x-{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 300))
    with pytest.raises(ConfigError) as caught:
        load_text(text, file="emp.yaml", environ={})
    assert caught.value.problems[0].message == "nested deeper than 32 levels"
