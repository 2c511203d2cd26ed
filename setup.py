"""The one extension; everything else is in pyproject.toml."""

from concurrent.futures import ThreadPoolExecutor
from glob import glob

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext as _build_ext

# No -march: each src_c/isa/*.c sets its own target, and one is picked when klce is imported.
# No -ffast-math, and no contraction: an fma is written where it is meant, so that results do not
# depend on the compiler.
UNIX_FLAGS = [
    "-std=c11",
    "-O3",
    "-g1",  # lines for a backtrace; Python's own -g makes the extension nine times as large
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-pthread",
]
MSVC_FLAGS = ["/std:c11", "/O2", "/fp:precise"]


class build_ext(_build_ext):
    def build_extension(self, ext):
        # The files of an extension are compiled one after the other otherwise.
        compile_files = self.compiler.compile

        def compile_in_parallel(sources, **options):
            with ThreadPoolExecutor() as pool:
                lists = pool.map(lambda source: compile_files([source], **options), sources)
                return [path for paths in lists for path in paths]

        self.compiler.compile = compile_in_parallel
        if self.compiler.compiler_type == "msvc":
            ext.extra_compile_args = MSVC_FLAGS
        else:
            ext.extra_compile_args = UNIX_FLAGS
            ext.extra_link_args = ["-pthread"]
            ext.libraries = ["m"]
        super().build_extension(ext)


ufuncs = Extension(
    "klce._ufuncs",
    sources=["klce/_ufuncs.pyx", *sorted(glob("src_c/**/*.c", recursive=True))],
    # Kernel bodies are headers and lists that the sources include.
    depends=sorted(glob("src_c/**/*.h", recursive=True) + glob("src_c/*.def")),
    include_dirs=["src_c", numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
)
ufuncs.cython_directives = {"language_level": 3, "freethreading_compatible": True}

setup(ext_modules=[ufuncs], cmdclass={"build_ext": build_ext})
