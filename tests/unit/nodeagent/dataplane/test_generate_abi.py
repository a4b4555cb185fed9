"""The generator understands our header, and nothing that it would get wrong."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from deltaplane.model.identity import FIRST_IDENTITY, Reserved
from nodeagent.dataplane import abi, port
from tools.generate_abi import HEADER, TWIN, HeaderError, generate

REPOSITORY = Path(__file__).resolve().parents[4]

GOOD = """\
#define DP_LIMIT 0x10
/* Colours. */
enum dp_colour {
\tDP_COLOUR_RED = 0,
\tDP_COLOUR_BLUE = 3,
};
/* Inner. */
struct dp_inner {
\t__be32 word[4];
};
_Static_assert(sizeof(struct dp_inner) == 16, "dp_inner");
/*
 * Outer,
 * on two lines.
 */
struct dp_outer {
\t__u64 big;
\tstruct dp_inner inner;
\t__be16 port;
\t__u8 mac[6];
\t__be32 set_id;
\t__u32 reserved;
};
_Static_assert(sizeof(struct dp_outer) == 40, "dp_outer");
"""


def load(source: str, tmp_path: Path) -> ModuleType:
    path = tmp_path / "twin.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("twin", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_twin_is_what_the_header_says() -> None:
    assert (REPOSITORY / TWIN).read_text() == generate((REPOSITORY / HEADER).read_text())


def test_script_writes_relative_to_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / HEADER).parent.mkdir(parents=True)
    (tmp_path / TWIN).parent.mkdir(parents=True)
    script = (sys.executable, REPOSITORY / "tools/generate_abi.py")
    (tmp_path / HEADER).write_text(GOOD)
    subprocess.run(script, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    assert (tmp_path / TWIN).read_text() == generate(GOOD)
    (tmp_path / HEADER).write_text("union u;\n")
    failed = subprocess.run(
        script, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=30
    )
    assert failed.returncode == 1
    assert f"{HEADER}:1:" in failed.stderr


def test_structs_pack_as_c_lays_them_out(tmp_path: Path) -> None:
    twin = load(generate(GOOD), tmp_path)
    value = twin.Outer(big=2**63, inner=b"i" * 16, port=80, mac=b"\x02\0\0\0\0\x01", set_id=7)
    packed = value.pack()
    assert packed == (
        (2**63).to_bytes(8, sys.byteorder) + b"i" * 16 + b"\0\x50" + b"\x02\0\0\0\0\x01"
        b"\0\0\0\x07" + bytes(4)
    )
    assert twin.Outer.unpack(packed) == value
    assert len(packed) == twin.OUTER_SIZE == 40
    assert twin.Outer.__doc__ == "Outer,\n    on two lines.\n    "


def test_enums_and_constants(tmp_path: Path) -> None:
    twin = load(generate(GOOD), tmp_path)
    assert {member.name: member.value for member in twin.Colour} == {"RED": 0, "BLUE": 3}
    assert twin.LIMIT == 16


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("\t__u32 reserved;\n", "", "padding at the end"),
        ("\t__u64 big;\n", "\t__u16 small;\n", "padding before inner"),
        ("== 40", "== 48", "size of struct dp_outer is not 48"),
        ("__be16 port", "__s16 port", "unknown type __s16"),
        ("struct dp_inner inner", "struct dp_other inner", "unknown type dp_other"),
        ("\t__u64 big;", "\t__u64 big:3;", "not understood"),
        ("= 3", "= RED + 3", "not understood"),
        ("0x10", "(1 << 4)", "not understood"),
        ("/* Colours. */\n", "", "no comment"),
        ('_Static_assert(sizeof(struct dp_inner) == 16, "dp_inner");\n', "", "no size assertion"),
    ],
)
def test_what_is_not_understood_is_refused(old: str, new: str, reason: str) -> None:
    assert old in GOOD
    with pytest.raises(HeaderError, match=rf"bpf/include/abi\.h:\d+: .*{reason}"):
        generate(GOOD.replace(old, new, 1))


def test_numbers_are_those_of_the_model() -> None:
    assert {m.name: m.value for m in abi.Identity} == {m.name: m.value for m in Reserved}
    assert abi.FIRST_IDENTITY == FIRST_IDENTITY
    assert {m.name: m.value for m in abi.Verdict} == {m.name: m.value for m in port.Verdict}


def test_outcomes_are_numbered_without_gaps() -> None:
    assert [outcome.value for outcome in abi.Outcome] == list(range(abi.OUTCOME_COUNT))
    assert {outcome.name.split("_")[0] for outcome in abi.Outcome} == {"PASS", "DROP"}
