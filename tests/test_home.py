"""Where things live, and that they get there whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import platformdirs
import pytest

from workbench.home import data_home, home, new_folder, read_json, write_file, write_json


def test_homes_follow_their_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "a"))
    monkeypatch.setenv("WORKBENCH_DATA", "b")  # relative to where the process is
    monkeypatch.chdir(tmp_path)
    assert (home(), data_home()) == (tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("value", [None, ""])
def test_homes_are_the_users_own_otherwise(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORKBENCH_HOME", "WORKBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert home() == Path(platformdirs.user_data_dir("workbench"))
    assert data_home() == Path(platformdirs.user_cache_dir("workbench")) / "datasets"


def test_a_file_is_written_with_its_folders_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    write_file(path, b"one", mode=0o600)
    write_file(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]  # nothing temporary is left


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_round_trips_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"größe": [1, 2.5, None]})
    assert read_json(path) == {"größe": [1, 2.5, None]}
    assert "größe" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert read_json(path) == {"größe": [1, 2.5, None]}


def test_a_new_folder_appears_at_once(tmp_path: Path) -> None:
    path = tmp_path / "models" / "1"
    with new_folder(path) as folder:
        (folder / "weights").write_bytes(b"w")
        (folder / "sub").mkdir()
        assert not path.exists()
    assert (path / "weights").read_bytes() == b"w"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert list(path.parent.iterdir()) == [path]


def fill(path: Path, error: BaseException | None = None) -> None:
    with new_folder(path) as folder:
        (folder / "file").touch()
        if error:
            raise error


def test_a_folder_that_fails_never_appears(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "1", KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path / "1")
    (tmp_path / "1" / "file").write_text("first")
    with pytest.raises(OSError, match="not empty"):
        fill(tmp_path / "1")
    assert (tmp_path / "1" / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [tmp_path / "1"]
