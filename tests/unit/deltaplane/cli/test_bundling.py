import io
import tarfile
from pathlib import Path

from deltaplane.cli import bundling
from deltaplane.errors import Unavailable


def refused() -> str:
    raise Unavailable("the slicer: password=hunter2")


def test_a_bundle_has_what_could_be_had_and_says_what_could_not() -> None:
    files = bundling.collected([("a.txt", lambda: "token=hunter2 and more"), ("b.txt", refused)])

    assert files.keys() == {"a.txt", "errors.txt"}
    assert "and more" in files["a.txt"]
    assert "b.txt: the slicer" in files["errors.txt"]
    assert not any("hunter2" in text for text in files.values())


def test_keys_are_not_taken_and_of_a_long_log_the_end(tmp_path: Path) -> None:
    key, log = tmp_path / "tls.key", tmp_path / "agent.log"
    key.write_text("anything")
    log.write_text("first\n" + "x" * bundling.LOG_BYTES + "\nlast\n")

    files = bundling.collected(
        [(path.name, bundling._tail(path)) for path in (key, log, tmp_path / "nowhere.log")]
    )

    assert files.keys() == {"agent.log", "errors.txt"}
    assert files["agent.log"].endswith("last\n")
    assert "first" not in files["agent.log"]
    assert "anything" not in files["errors.txt"]


def test_the_archive_holds_the_files_for_nobody_else() -> None:
    data = bundling.archive({"a.txt": "ä", "logs/b.log": "b"})

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        entries = tar.getmembers()
        assert [entry.name for entry in entries] == [
            "deltaplane-bundle/a.txt",
            "deltaplane-bundle/logs/b.log",
        ]
        assert {entry.mode for entry in entries} == {0o600}
        inner = tar.extractfile(entries[0])
        assert inner is not None
        assert inner.read().decode() == "ä"
