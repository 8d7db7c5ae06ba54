"""The compiled modules, and what makes builds repeatable; all else about the package is in pyproject.toml."""

import gzip
import json
import os
import subprocess
import sys
import tarfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import Cython
import numpy as np
import setuptools
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

# The time of all files in sdists and wheels, so that two builds of the same sources have the same bytes.
EPOCH = os.environ.setdefault("SOURCE_DATE_EPOCH", "315532800")  # 1980-01-01, where the time of a zip begins

if os.name == "posix":
    os.umask(0o022)  # modes are bytes, too

# -ffp-contract=off: the kernels write out their FMAs, the compiler adds none.
unix = ["-std=gnu11", "-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"]
unix += [f"-ffile-prefix-map={Path.cwd()}=."]


class BuildInParallel(build_ext):
    """Compile as many files at a time as there are cores."""

    def build_extension(self, extension):
        compile_all = self.compiler.compile

        def compile_each(sources, *arguments, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda source: compile_all([source], *arguments, **options), sources)
                return [name for names in objects for name in names]

        self.compiler.compile = compile_each
        super().build_extension(extension)


class SourcesAlone(sdist):
    """Write an archive of names and contents: no times, no owners, no modes but one bit."""

    def run(self):
        listed = Path(self.get_finalized_command("egg_info").egg_info, "SOURCES.txt")
        listed.unlink(missing_ok=True)  # an earlier build's, whose files would be listed, too
        super().run()

    def make_archive(self, base_name, kind, base_dir, **options):
        if kind != "gztar":
            return super().make_archive(base_name, kind, base_dir=base_dir, **options)
        path = Path(f"{base_name}.tar.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            path.open("wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=int(EPOCH)) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            archive.add(base_dir, filter=anonymous)  # sorted by names
        return str(path)


def anonymous(member):
    """A member of an archive as it is on any machine."""
    member.mtime, member.uid, member.gid, member.uname, member.gname = int(EPOCH), 0, 0, "", ""
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


class WheelWithContents(bdist_wheel):
    """Put a list of what the wheel is made of and made by into it: an SBOM, as PEP 770 has it."""

    def write_wheelfile(self, wheelfile_base, *arguments, **options):
        super().write_wheelfile(wheelfile_base, *arguments, **options)
        folder = Path(wheelfile_base) / "sboms"
        folder.mkdir(exist_ok=True)
        compiler = getattr(self.get_finalized_command("build_ext").compiler, "compiler_so", None)
        text = json.dumps(contents(self.distribution.get_version(), compiler), indent=2)
        (folder / "fastgru.cdx.json").write_text(text + "\n", newline="\n")


def contents(version, compiler):
    """A wheel's list of components as CycloneDX 1.6 has it.

    It holds no other package's files; NumPy and SciPy are required, not included. Code that Cython writes and
    inline functions of NumPy's headers are compiled in: both are among the tools.
    """
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    tools = [
        ("cython", Cython.__version__),
        ("numpy", np.__version__),
        ("setuptools", setuptools.__version__),
    ]
    found = [tool("library", name, used, f"pkg:pypi/{name}@{used}") for name, used in tools]
    if compiler:
        said = subprocess.run([compiler[0], "--version"], capture_output=True, text=True, check=True)
        found.append(tool("application", Path(compiler[0]).name, said.stdout.splitlines()[0]))
    required = [line.partition(">") for line in project["dependencies"]]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": found},
            "component": {
                "type": "library",
                "bom-ref": "fastgru",
                "name": "fastgru",
                "version": version,
                "purl": f"pkg:pypi/fastgru@{version}",
                "licenses": [{"expression": project["license"]}],
            },
        },
        "components": [
            {
                "type": "library",
                "bom-ref": name,
                "name": name,
                "purl": f"pkg:pypi/{name}",
                "properties": [{"name": "fastgru:required", "value": sign + least}],
            }
            for name, sign, least in required
        ],
        "dependencies": [{"ref": "fastgru", "dependsOn": [name for name, *_ in required]}],
        "compositions": [{"aggregate": "complete", "assemblies": ["fastgru"]}],
    }


def tool(kind, name, version, purl=None):
    """A program or a library that built the wheel."""
    return {"type": kind, "name": name, "version": version} | ({"purl": purl} if purl else {})


engine = sorted(str(path) for path in Path("src").glob("*.c"))
depends = [
    str(path)
    for pattern in ("fastgru/*.pxd", "include/fastgru/*.h", "src/*.h")
    for path in Path().glob(pattern)
]
modules = [
    Extension(
        f"fastgru.{name}",
        sources=[f"fastgru/{name}.pyx", *(engine if name == "_plans" else [])],
        include_dirs=["include", np.get_include()],
        depends=depends,
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        extra_compile_args=[] if sys.platform == "win32" else unix,
        extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
    )
    for name in ("_plans", "_core", "_kernels", "_blas_engine", "_calls", "_streams", "_pool", "_tensors")
]
setup(
    ext_modules=cythonize(modules, language_level=3),
    cmdclass={"build_ext": BuildInParallel, "sdist": SourcesAlone, "bdist_wheel": WheelWithContents},
)
