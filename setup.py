"""The one extension; everything else about the package is in pyproject.toml."""

import sys
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

# -ffp-contract=off: the kernels write out their FMAs, the compiler adds none.
unix = ["-std=gnu11", "-O3", "-g0", "-ffp-contract=off", "-fno-math-errno"]

core = Extension(
    "fastgru._core",
    sources=["fastgru/_core.pyx"],
    include_dirs=["include", np.get_include()],
    depends=[str(path) for glob in ("fastgru/*.pxd", "include/fastgru/*.h") for path in Path().glob(glob)],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
    extra_compile_args=[] if sys.platform == "win32" else unix,
)
setup(ext_modules=cythonize([core], language_level=3))
