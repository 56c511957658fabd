"""What a process was started in: variables of the batch system and the frameworks, packages, the versions of CUDA."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from ..journal.values import text
from ..redact import redact_mapping, secret_values

MAX_VARIABLES = 400
MAX_VALUE = 1000
MAX_PACKAGES = 4000

# What else is worth knowing of an environment. Everything that is not listed stays out.
_NAMES = re.compile(
    r"(?:SLURM|TORCHELASTIC|TORCH|PYTORCH|TORCHINDUCTOR|CUDA|CUBLAS|CUDNN|NVIDIA|NCCL|GLOO|UCX|RCCL|HIP|HSA|ROCR|OMP|KMP|MKL|"
    r"OPENBLAS|NUMEXPR|OMPI|PMI|PMIX|I_MPI|MV2|TF|XLA|JAX|TPU|LIBTPU|HF|TRANSFORMERS|TOKENIZERS|DATASETS|ACCELERATE|FSDP|"
    r"DEEPSPEED|DS|RAY|PL|LIGHTNING|KERAS|SM|AIP|AZUREML|PBS|LSB|SGE|POD|KUBERNETES_SERVICE|FLIGHTLOG|PYTHON|"
    r"MASTER|CONDA_DEFAULT)_[A-Z0-9_]+|"
    r"PYTHON[A-Z]+|(?:LOCAL_|GROUP_|ROLE_|NODE_)?RANK|(?:LOCAL_|GROUP_|ROLE_)?WORLD_SIZE|VIRTUAL_ENV|CONDA_PREFIX|"
    r"LD_LIBRARY_PATH|LD_PRELOAD|HOSTNAME|TZ|LANG|LC_ALL|TMPDIR|GPU_DEVICE_ORDINAL|CONTAINER|SINGULARITY_NAME|APPTAINER_NAME"
)


def variables(allow: Iterable[str] = (), environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables of batch systems, containers, MPI and the frameworks, without secrets.

    Args:
        allow: names whose values are shown whatever they are called.
        environ: where they are taken from.
    """
    chosen = sorted(name for name in environ if _NAMES.fullmatch(name))[:MAX_VARIABLES]
    values = {name: text(environ[name])[: 4 * MAX_VALUE] for name in chosen}
    shown = redact_mapping(values, allow=allow, secrets=secret_values(environ))
    return {name: value[:MAX_VALUE] for name, value in shown.items()}


def packages(path: Iterable[str] | None = None) -> dict[str, str]:
    """Return the versions of the installed distributions by name, as the first on the path that Python would take.

    They are read from the names of their metadata folders (packaging.python.org, "Recording installed projects"): what
    `importlib.metadata` reads of a thousand files takes a second.

    Args:
        path: folders; sys.path without them.
    """
    found: dict[str, str] = {}
    for folder in sys.path if path is None else path:
        try:
            with os.scandir(folder or ".") as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith((".dist-info", ".egg-info")))
        except OSError:
            continue
        for name in names:
            project, _, version = name.rpartition(".")[0].partition("-")
            if version and len(found) < MAX_PACKAGES:
                plain = re.sub(r"[-_.]+", "-", project).lower()
                found.setdefault(text(plain)[:100], text(re.sub(r"-py\d.*$", "", version))[:100])
    return dict(sorted(found.items()))


def cuda() -> dict[str, Any]:
    """Return the versions of CUDA and its like that an imported framework was built with. Nothing is imported."""
    found: dict[str, Any] = {}
    torch = sys.modules.get("torch")
    version = getattr(torch, "version", None)
    for name in ("cuda", "hip"):
        value = getattr(version, name, None)
        if isinstance(value, str):
            found[f"torch_{name}"] = value
    return found
