"""The data directory: private, and clear about what is wrong with it."""

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from ias.local import data_directory
from ias.local.data_directory import DataDirectory, explain_os_errors, find_document, write_private
from ias.local.errors import PlatformError


def test_the_directory_is_for_its_owner_alone(tmp_path: Path):
    data = DataDirectory(tmp_path / "deep" / "ias")
    data.create()
    assert stat.S_IMODE(data.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(data.logs.stat().st_mode) == 0o700


def test_a_file_in_the_way_is_said_in_one_line(tmp_path: Path):
    (tmp_path / "ias").write_text("")
    with pytest.raises(PlatformError, match=r"is not a directory: choose another place with --data-dir") as caught:
        DataDirectory(tmp_path / "ias").create()
    assert "\n" not in str(caught.value)


def test_a_disk_with_too_little_room_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(data_directory.shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(PlatformError, match="only 1 MiB are free"):
        DataDirectory(tmp_path / "ias").create()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "full"), (errno.EACCES, "cannot be written"), (errno.EROFS, "cannot be written")],
)
def test_what_the_system_refuses_is_explained(number: int, words: str):
    with pytest.raises(PlatformError, match=words), explain_os_errors(Path("/somewhere")):
        raise OSError(number, os.strerror(number))


def test_a_document_is_private_whole_and_leaves_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "connection.json"
    write_private(path, {"a": 1})
    write_private(path, {"a": 2})
    assert find_document(path) == {"a": 2}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["connection.json"]


def test_a_document_that_is_not_there_is_none(tmp_path: Path):
    assert find_document(tmp_path / "none.json") is None


def test_a_large_log_is_set_aside_at_the_next_start(tmp_path: Path):
    data = DataDirectory(tmp_path)
    data.create()
    with data.log_file("gateway").open("wb") as log:
        log.truncate(21 << 20)
    data.log_file("engine").write_text("short")
    data.create()
    assert sorted(path.name for path in data.logs.iterdir()) == ["engine.log", "gateway.log.1"]
