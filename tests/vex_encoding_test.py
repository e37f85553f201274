"""The kernels for AVX-VNNI must run on CPUs without AVX-512: their object code holds no EVEX instruction."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SOURCES = sorted((REPOSITORY / "runtime/kernels/avxvnni").glob("*.cpp"))
VEX = ("-mavxvnni",)
EVEX = ("-mavx512vl", "-mavx512bw", "-mavx512vnni", "-mprefer-vector-width=256", "-DLUTC_EVEX=1")

_EVEX_PREFIX = 0x62
"""First byte of an EVEX instruction; 64-bit code has no other use for it."""


def first_bytes(source: Path, flags: tuple[str, ...], folder: Path) -> tuple[list[int], str]:
    """First byte of every instruction that a source compiles to, and the disassembly."""
    compiler, objdump = shutil.which("g++"), shutil.which("objdump")
    if compiler is None or objdump is None:
        pytest.skip("needs g++ and objdump")
    common = ["-O3", "-DNDEBUG", "-std=c++17", "-fno-exceptions", "-fno-rtti", "-ffp-contract=off", "-mavx2", "-mfma"]
    target = folder / "kernels.o"
    include = f"-I{REPOSITORY / 'runtime'}"
    done = subprocess.run(
        [compiler, *common, "-mf16c", *flags, include, "-DLUTC_X86=1", "-c", str(source), "-o", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized" in done.stderr:
        pytest.skip("this compiler knows no AVX-VNNI")
    assert done.returncode == 0, done.stderr
    text = subprocess.run([objdump, "-d", str(target)], capture_output=True, text=True, check=True).stdout
    lines = [line.split("\t") for line in text.splitlines()]
    # Lines that go on with the bytes of a long instruction have no mnemonic.
    return [int(line[1].split()[0], 16) for line in lines if len(line) >= 3], text


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_evex_instruction_where_there_is_no_avx512(source, tmp_path):
    bytes_of, text = first_bytes(source, VEX, tmp_path)
    assert "vpdpbusd" in text
    assert "zmm" not in text
    assert _EVEX_PREFIX not in bytes_of


def test_the_other_encoding_has_them(tmp_path):
    bytes_of, text = first_bytes(SOURCES[0], EVEX, tmp_path)
    assert "vpdpbusd" in text
    assert _EVEX_PREFIX in bytes_of
    assert "zmm" not in text
