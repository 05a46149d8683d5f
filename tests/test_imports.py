"""`import identkit` and `identkit check` stay light, and every public name is where it is said to be.

Each light import is tested in a fresh process in which decoys stand before the heavy packages: whatever
imports one, in that process or in a child of it, leaves its stack in a file.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import identkit

PUBLIC = vars(identkit)

DECOY = """
import os, traceback
with open(os.environ["IDENTKIT_TEST_TRACE"], "a") as trace:
    traceback.print_stack(file=trace)
raise ImportError(f"{__name__} should not be imported here")
"""


def python_without(packages, arguments, folder: Path, text: str = ""):
    """Run Python with decoys before `packages`; return the finished process and what imported them."""
    trace = folder / "trace.txt"
    trace.touch()
    for package in packages:
        (folder / f"{package}.py").write_text(DECOY)
    root = str(Path(identkit.__file__).parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), root]),
        "IDENTKIT_TEST_TRACE": str(trace),
    }
    done = subprocess.run(
        [sys.executable, *arguments], input=text, env=environment, cwd=folder, capture_output=True, text=True
    )
    return done, trace.read_text()


def test_decoys_catch_an_import(tmp_path):
    done, trace = python_without(["torch"], ["-c", "import identkit; identkit.compiled"], tmp_path)
    assert done.returncode == 1
    assert "compiled" in trace


def test_import_loads_neither_torch_nor_sympy(tmp_path):
    script = "import identkit; print(identkit.__version__)"
    done, trace = python_without(["torch", "sympy"], ["-c", script], tmp_path)
    assert trace == ""
    assert done.stdout.strip() == identkit.__version__, done.stderr


def test_help_needs_no_heavy_package(tmp_path):
    heavy = ["torch", "sympy", "numpy", "scipy", "matplotlib"]
    done, trace = python_without(heavy, ["-m", "identkit", "--help"], tmp_path)
    assert trace == ""
    assert "verify" in done.stdout, done.stderr


def test_check_of_a_text_loads_no_torch(tmp_path):
    text = "z ~ Normal(0,1); observe x ~ Normal(w*z,1)"
    done, trace = python_without(["torch"], ["-m", "identkit", "check", "-", "--at", "w=0"], tmp_path, text)
    assert trace == ""
    assert done.returncode == 0, done.stderr
    assert "CONSTANT" in done.stdout


@pytest.mark.parametrize("name", PUBLIC["__all__"])
def test_public_name_resolves(name):
    value = getattr(identkit, name)
    assert value.__name__ in (name, f"identkit.{name}")
    assert name in dir(identkit)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'identkit' has no attribute 'nonsense'"):
        identkit.nonsense  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_type_checkers_see_the_public_names():
    tree = ast.parse(Path(identkit.__file__).read_text())
    block = next(
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        name.asname: f"{statement.module}.{name.name}"
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for name in statement.names
    }
    table = {name: f"{home}.{name}" for name, home in PUBLIC["_HOME"].items()}
    assert seen == table | {name: f"identkit.{name}" for name in PUBLIC["_SUBMODULES"]}


def test_importing_changes_no_global_state(tmp_path):
    script = """
import random, warnings
import flint, matplotlib.pyplot, mpmath, numpy, scipy.stats, sympy, torch  # what they change is theirs
import identkit

def state():
    return (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
            torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate(),
            numpy.geterr(), numpy.get_printoptions(), mpmath.mp.dps, flint.ctx.prec,
            dict(matplotlib.rcParams), list(warnings.filters))

before = state()
for name in identkit.__all__:
    getattr(identkit, name)
assert state() == before
"""
    done, _ = python_without([], ["-c", script], tmp_path)
    assert done.returncode == 0, done.stderr
