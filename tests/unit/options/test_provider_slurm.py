"""The options of the provider `slurm`: what is taken, and what is wrong with the rest."""

from __future__ import annotations

from typing import Any

import pytest

from emp_orch.options import providers
from emp_orch.options.base import WrongOption
from emp_orch.options.provider_slurm import Options, options_of


def test_none_are_needed() -> None:
    assert options_of({}) == Options()
    providers.check("slurm", {})


def test_all_of_them() -> None:
    found = options_of(
        {
            "partition": "gpu",
            "gres": "gpu:a100:1",
            "cpus": 8,
            "memory": "32G",
            "time": "8h",
            "container": {"apptainer": "/images/emp.sif"},
            "python": "/opt/python",
            "setup": ["module load cuda"],
            "sbatch": ["--exclusive", "--nice=100"],
        }
    )
    assert (found.partition, found.gres, found.cpus, found.memory) == ("gpu", "gpu:a100:1", 8, "32G")
    assert (found.time_s, found.apptainer, found.python) == (8 * 3600.0, "/images/emp.sif", "/opt/python")
    assert (found.setup, found.sbatch) == (("module load cuda",), ("--exclusive", "--nice=100"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"partitoin": "gpu"}, "partitoin is unknown"),
        ({"partition": "a b"}, "partition must be one word"),
        ({"cpus": 0}, "cpus must be a whole number"),
        ({"cpus": True}, "cpus must be a whole number"),
        ({"time": "10s"}, "time must be a duration"),
        ({"time": 4}, "time must be a duration"),
        ({"container": {"docker": "x"}}, "container must be"),
        ({"container": "x"}, "container must be"),
        ({"venv": "here"}, "venv must be an absolute path"),
        ({"venv": "/v", "python": "/p"}, "python is given beside venv"),
        ({"setup": "module load"}, "setup must be a list"),
        ({"setup": [""]}, "setup.0 must be text"),
        ({"sbatch": ["--job-name=x"]}, "sbatch.0 cannot be given"),
        ({"sbatch": ["-Jx"]}, "sbatch.0 cannot be given"),
        ({"sbatch": ["script.sh"]}, "sbatch.0 cannot be given"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongOption, match="provider_options of the slurm provider") as e:
        options_of(given)
    assert message in e.value.message
