"""The one extension; everything else is in pyproject.toml."""

import copy
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext as _build_ext

UNIX_FLAGS = [
    line for line in Path("src_c/flags.txt").read_text().splitlines() if line.startswith("-")
]
MSVC_FLAGS = ["/std:c11", "/experimental:c11atomics", "/O2", "/fp:precise"]


class build_ext(_build_ext):
    def build_extension(self, ext):
        # The files of an extension are compiled one after the other otherwise.
        compile_files = self.compiler.compile
        of_core = self._compiler_of_core().compile

        def compile_one(source, **options):
            if source in CORE:
                options |= {"include_dirs": ["src_c"], "macros": []}
                return of_core([source], **options)
            return compile_files([source], **options)

        def compile_in_parallel(sources, **options):
            with ThreadPoolExecutor() as pool:
                lists = pool.map(lambda source: compile_one(source, **options), sources)
                return [path for paths in lists for path in paths]

        self.compiler.compile = compile_in_parallel
        if self.compiler.compiler_type == "msvc":
            ext.extra_compile_args = MSVC_FLAGS
        else:
            ext.extra_compile_args = UNIX_FLAGS
            ext.extra_link_args = ["-pthread"]
            ext.libraries = ["m"]
        super().build_extension(ext)

    def _compiler_of_core(self):
        """Return one without Python's own flags and headers: the core has no need of them.

        So a cache of objects serves every version of Python, and the core is the same in all.
        """
        compiler = copy.copy(self.compiler)
        if compiler.compiler_type != "msvc":
            # But for what they say of the machine (-arch, -isysroot), and never the user's own.
            words = ["-fPIC", *(sysconfig.get_config_var("CFLAGS") or "").split()]
            of_python = [word for word in words if word.startswith(("-D", "-O", "-W", "-f", "-g"))]
            command = [word for word in compiler.compiler_so if word not in of_python]
            compiler.set_executable("compiler_so", command)
            compiler.include_dirs = []
        return compiler


CORE = sorted(glob("src_c/**/*.c", recursive=True))
ufuncs = Extension(
    "klce._ufuncs",
    sources=["klce/_ufuncs.pyx", *CORE],
    # Kernel bodies are headers and lists that the sources include.
    depends=sorted(
        [*glob("src_c/**/*.h", recursive=True), *glob("src_c/*.def"), "src_c/flags.txt"]
    ),
    include_dirs=["src_c", numpy.get_include()],
    define_macros=[
        ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
        ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
    ],
)
ufuncs.cython_directives = {"language_level": 3, "freethreading_compatible": True}

setup(ext_modules=[ufuncs], cmdclass={"build_ext": build_ext})
