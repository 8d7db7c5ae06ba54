"""Which engine and which instruction set the environment chooses, and the report of it."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import scipy
from conftest import CHOICES

import fastgru
from fastgru import _config, _kernels

FACTS = [
    *[
        "fastgru",
        "engine",
        "isa",
        "usable isas",
        "float16 weights",
        "int8 weights",
        "threads",
        "blas",
        "numpy",
    ],
    *["scipy", "python", "system", "processor", "caches", "environment"],
]
VARIABLES = ("FASTGRU_ENGINE", "FASTGRU_ISA", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def names(choice):
    return {"FASTGRU_ENGINE": choice.engine, "FASTGRU_ISA": choice.isa}


def run(program, **environment):
    """A fresh interpreter in which nothing but this is set."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FASTGRU_")}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=False)


# ---- the choice ----------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", CHOICES, ids="-".join)
def test_every_usable_pair_of_names_is_chosen(choice):
    assert _config.choose(names(choice)) == choice


@pytest.mark.parametrize("isa", _kernels.isas())
def test_an_isa_alone_gets_the_first_engine_that_has_it(isa):
    engine = "packed" if isa in _kernels.packed_isas() else "blas"
    assert _config.choose({"FASTGRU_ISA": isa}) == (engine, isa)


@pytest.mark.parametrize("engine", [choice.engine for choice in CHOICES if choice.isa == _kernels.isas()[0]])
def test_an_engine_alone_gets_the_fastest_isa(engine):
    assert _config.choose({"FASTGRU_ENGINE": engine}) == (engine, _kernels.isas()[0])


@pytest.mark.parametrize(
    "environment", [{}, {"FASTGRU_ENGINE": "", "FASTGRU_ISA": ""}, {"FASTGRU": "blas", "ISA": "sse2"}]
)
def test_nothing_asked_for_is_the_fastest(environment):
    isa = _kernels.isas()[0]
    assert _config.choose(environment) == ("packed" if isa in _kernels.packed_isas() else "blas", isa)


MACHINES = [  # usable instruction sets, packed ones, what is chosen
    (("avx512", "avx2", "sse2"), ("avx512", "avx2"), ("packed", "avx512")),
    (("neon",), ("neon",), ("packed", "neon")),
    (("sse2",), (), ("blas", "sse2")),
    (("generic",), (), ("blas", "generic")),
]


@pytest.mark.parametrize(("isas", "packed", "chosen"), MACHINES)
def test_other_machines_choose_their_fastest(monkeypatch, isas, packed, chosen):
    monkeypatch.setattr(_kernels, "isas", lambda: isas)
    monkeypatch.setattr(_kernels, "packed_isas", lambda: packed)
    assert _config.choose({}) == chosen
    for isa in isas:
        assert _config.choose({"FASTGRU_ENGINE": "blas", "FASTGRU_ISA": isa}) == ("blas", isa)
    for isa in set(isas) - set(packed):
        message = rf"^FASTGRU_ENGINE must be one of blas with {isa}, got 'packed'$"
        with pytest.raises(ValueError, match=message):
            _config.choose({"FASTGRU_ENGINE": "packed", "FASTGRU_ISA": isa})


@pytest.mark.parametrize("name", ["mmx", "AVX2", "avx2 ", "packed", "0"])
def test_an_unusable_isa_is_told_the_usable_ones(name):
    usable = ", ".join(_kernels.isas())
    with pytest.raises(ValueError, match=r"^FASTGRU_ISA must be one of") as error:
        _config.choose({"FASTGRU_ISA": name})
    assert str(error.value) == f"FASTGRU_ISA must be one of {usable} on this machine, got {name!r}"


@pytest.mark.parametrize("name", ["cuda", "Packed", "blas,packed", "avx2", "0"])
def test_an_unusable_engine_is_told_the_usable_ones(name):
    usable = "packed, blas" if _kernels.isas()[0] in _kernels.packed_isas() else "blas"
    with pytest.raises(ValueError, match=r"^FASTGRU_ENGINE must be one of") as error:
        _config.choose({"FASTGRU_ENGINE": name})
    assert (
        str(error.value) == f"FASTGRU_ENGINE must be one of {usable} with {_kernels.isas()[0]}, got {name!r}"
    )


# ---- in an interpreter of its own ------------------------------------------------------------------

PROGRAM = """
import os
from fastgru import GRU
os.environ |= {"FASTGRU_ENGINE": "neither", "FASTGRU_ISA": "nor"}  # too late
import fastgru, numpy as np
layer = GRU(3)
layer(np.zeros((1, 2, 3), np.float32))
facts = fastgru.show_config("dicts")
print(layer._plan.engine, layer._plan.isa, facts["engine"], facts["isa"], facts["environment"])
"""


@pytest.mark.outside
@pytest.mark.parametrize("choice", CHOICES, ids="-".join)
def test_the_environment_is_read_once_and_layers_obey(choice):
    done = run(PROGRAM, **names(choice), OPENBLAS_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    chosen = f"{choice.engine} {choice.isa}"
    assert done.stdout.startswith(f"{chosen} {chosen} FASTGRU_ENGINE=neither, FASTGRU_ISA=nor, ")


@pytest.mark.outside
@pytest.mark.parametrize("variable", ["FASTGRU_ENGINE", "FASTGRU_ISA"])
@pytest.mark.parametrize("code", ["from fastgru import GRU", "import fastgru; fastgru.load"])
def test_the_import_of_a_layer_fails_for_an_unusable_name(variable, code):
    done = run(code, **{variable: "abcd"})
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ValueError: {variable} must be one of ")
    assert last.endswith(", got 'abcd'")


def test_the_choice_stays_when_the_environment_changes(monkeypatch):
    before = _config.CHOICE
    for choice in CHOICES:
        for name, value in names(choice).items():
            monkeypatch.setenv(name, value)
        layer = fastgru.GRU(2)
        layer.build((None, None, 3))
        facts = fastgru.show_config("dicts")
        assert (layer._plan.engine, layer._plan.isa) == (facts["engine"], facts["isa"]) == before


def test_layers_run_as_the_choice_was_when_they_got_their_weights(choice, monkeypatch):
    layer = fastgru.GRU(2)
    layer.build((None, None, 3))
    assert (layer._plan.engine, layer._plan.isa) == choice


# ---- the report ----------------------------------------------------------------------------------


def test_the_report_says_what_computes(choice):
    facts = fastgru.show_config(mode="dicts")
    assert list(facts) == FACTS
    assert all(type(fact) is str and fact for fact in facts.values())
    assert (facts["engine"], facts["isa"]) == choice
    assert facts["usable isas"] == ", ".join(_kernels.isas())
    assert facts["float16 weights"] == ("yes" if choice.isa in _kernels.float16_isas() else "no")
    versions = [facts[name] for name in ("fastgru", "numpy", "scipy")]
    assert versions == [fastgru.__version__, np.__version__, scipy.__version__]
    assert platform.python_version() in facts["python"]
    assert f"{os.cpu_count()} cores" in facts["processor"]
    built = scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    assert facts["blas"] == f"{built['name']} {built['version']}"


def test_the_report_says_what_the_environment_sets(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert fastgru.show_config("dicts")["environment"] == "nothing set"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("FASTGRU_ISA", "sse2")
    assert fastgru.show_config("dicts")["environment"] == "FASTGRU_ISA=sse2, OMP_NUM_THREADS=3"


@pytest.mark.parametrize("arguments", [(), ("stdout",)])
def test_the_report_is_printed(capsys, arguments):
    assert fastgru.show_config(*arguments) is None
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{name:<15}  {fact}" for name, fact in fastgru.show_config("dicts").items()]


@pytest.mark.parametrize("mode", ["json", "", None, 3, "Stdout"])
def test_another_mode_of_report_is_an_error(mode):
    with pytest.raises(ValueError, match=r"^mode must be 'stdout' or 'dicts', got ") as error:
        fastgru.show_config(mode)
    assert str(error.value).endswith(f"got {mode!r}")


def test_caches_are_those_whose_size_the_system_tells(tmp_path):
    for index, facts in enumerate(
        [
            {"level": "1", "type": "Data", "size": "32K"},
            {"level": "1", "type": "Instruction", "size": "32K"},
            {"level": "2", "type": "Unified"},
            {"level": "3", "type": "Unified", "size": "16M"},
        ]
    ):
        (tmp_path / f"index{index}").mkdir()
        for name, fact in facts.items():
            (tmp_path / f"index{index}" / name).write_text(f"{fact}\n")
    assert _config._caches(tmp_path) == "L1 32 KiB, L3 16 MiB"
    assert _config._caches(tmp_path / "index2") == "unknown"
