"""The compiled modules; everything else about the package is in pyproject.toml."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# -ffp-contract=off: the kernels write out their FMAs, the compiler adds none.
unix = ["-std=gnu11", "-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"]


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
setup(ext_modules=cythonize(modules, language_level=3), cmdclass={"build_ext": BuildInParallel})
