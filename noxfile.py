"""What is tested outside the default run: the core on the other interpreters, and with its oldest dependencies."""

from __future__ import annotations

import nox

nox.options.sessions = ["core"]
nox.options.reuse_existing_virtualenvs = True

# What tests/core needs besides the core itself; torch and its kind are tested in the default run.
_TOOLS = ("pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100", "numpy", "pillow", "attrs", "omegaconf", "pydantic")
_OLDEST = ("orjson==3.10.0", "requests==2.31.0", "click==8.1.0", "rich==13.0.0", "psutil==5.9.0", "zstandard==0.22.0")


@nox.session(python=["3.10", "3.12", "3.13"])
def core(session: nox.Session) -> None:
    """The core's tests on another interpreter."""
    session.install("-e", ".", *_TOOLS, env={"FLIGHTLOG_NO_DASHBOARD": "1"})
    session.run("pytest", "tests/core", *session.posargs)


@nox.session(python="3.10")
def oldest(session: nox.Session) -> None:
    """The core's tests with the oldest dependencies that it claims to work with."""
    session.install("-e", ".", *_TOOLS, *_OLDEST, env={"FLIGHTLOG_NO_DASHBOARD": "1"})
    session.run("pytest", "tests/core", *session.posargs)


# Keras is tested on torch in the default run.
_KERAS = {
    "jax": ("keras>=3.15", "jax"),
    "tensorflow": ("keras>=3.15", "tensorflow-cpu"),
    "oldest": ("keras==3.10.0", "jax==0.4.30", "jaxlib==0.4.30", "numpy<2"),
}


@nox.session(python="3.11")
@nox.parametrize("which", list(_KERAS))
def keras(session: nox.Session, which: str) -> None:
    """The tests of the integration with Keras on its other backends, and with the oldest Keras."""
    backend = "tensorflow" if which == "tensorflow" else "jax"
    session.install("-e", ".[server]", *_TOOLS, "scikit-learn", *_KERAS[which], env={"FLIGHTLOG_NO_DASHBOARD": "1"})
    session.run("pytest", "tests/integrations/keras", *session.posargs, env={"KERAS_BACKEND": backend})


@nox.session(python="3.11")
@nox.parametrize("version", ["2.4.0", "2.5.0"])
def lightning(session: nox.Session, version: str) -> None:
    """The logger with the oldest Lightning that it claims to work with, and one from between."""
    tools = (*_TOOLS, "scikit-learn", "jsonargparse[signatures]>=4.30")
    session.install("-e", ".[server]", *tools, f"lightning=={version}", f"pytorch-lightning=={version}",
                    env={"FLIGHTLOG_NO_DASHBOARD": "1"})  # fmt: skip
    # Old frameworks meet new libraries: what those warn of is not ours.
    session.run("pytest", "-W", "ignore", "tests/integrations/test_training.py", "tests/integrations/lightning",
                *session.posargs)  # fmt: skip


@nox.session(python="3.11")
@nox.parametrize(("version", "accelerate", "torch"), [("4.46.3", "1.0.1", "2.5.1"), ("4.57.1", "1.11.0", "2.8.0")])
def transformers(session: nox.Session, version: str, accelerate: str, torch: str) -> None:
    """The Trainer's callback and accelerate's tracker with the oldest that they claim to work with, and between."""
    tools = (*_TOOLS, "scikit-learn", "peft", "optuna", "tensorboard")
    packages = (f"transformers=={version}", f"accelerate=={accelerate}", f"torch=={torch}")
    session.install("-e", ".[server]", *tools, *packages, env={"FLIGHTLOG_NO_DASHBOARD": "1"})
    # Old frameworks meet new libraries: what those warn of is not ours.
    session.run("pytest", "-W", "ignore", "tests/integrations/transformers", *session.posargs)


@nox.session(python="3.11")
def changelog(session: nox.Session) -> None:
    """Show the changelog that the fragments make."""
    session.install("towncrier>=23")
    session.run("towncrier", "build", "--draft", "--version", "next")
