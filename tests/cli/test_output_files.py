"""A file that a command writes is whole, or not there; what cannot be written is said, and stays as it was."""

from pathlib import Path

import pytest

from ias.cli.failures import CommandError
from ias.cli.output_files import open_output


def test_a_file_is_written(tmp_path: Path) -> None:
    with open_output(tmp_path / "out") as target:
        target.write(b"all of it")
    assert (tmp_path / "out").read_bytes() == b"all of it"


def write_half_of(output: Path, failure: BaseException) -> None:
    with open_output(output) as target:
        target.write(b"half of it")
        raise failure


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_file_that_is_not_complete_is_removed(tmp_path: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure):
        write_half_of(tmp_path / "out", failure())
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line_and_a_device_stays() -> None:
    full = pytest.raises(CommandError, match="/dev/full cannot be written: No space left on device")
    with full, open_output(Path("/dev/full")) as target:
        target.write(b"more")
    assert Path("/dev/full").exists()


def test_what_cannot_be_opened_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "link")  # opening it fails, whoever asks
    with pytest.raises(CommandError, match="cannot be written"), open_output(tmp_path / "link"):
        pass
    assert (tmp_path / "link").is_symlink()
