import json
import os

import pytest

from kerasvision.training import run_folder


def test_flagfile_repeats_the_flags():
    values = {
        "epochs": 3,
        "resume": True,
        "jit_compile": None,
        "download": False,
        "export": ["a", "b"],
    }
    text = run_folder.flagfile_text(values)
    assert text == "--nodownload\n--epochs=3\n--export=a,b\n--resume\n"
    assert run_folder.read_flags(text) == {
        "nodownload": "", "epochs": "3", "export": "a,b", "resume": "",
    }  # fmt: skip


def test_unwritable_folder_is_found_out(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(run_folder.RunError, match="file/run: can't be written"):
        run_folder.make_folder(tmp_path / "file" / "run", 1)


def test_full_disk_is_found_out(tmp_path):
    with pytest.raises(run_folder.RunError, match="needs 1000000000000 MB of free disk; received"):
        run_folder.make_folder(tmp_path, 1e18)


def test_other_flags_are_refused_and_free_ones_are_not(tmp_path):
    run_folder.prepare(tmp_path, {"epochs": 2}, True, 1)
    run_folder.prepare(tmp_path, {"epochs": 3, "workdir": "a", "resume": True}, True, 1)
    (tmp_path / "last.keras").write_text("a checkpoint")
    run_folder.prepare(tmp_path, {"epochs": 3, "workdir": "b", "resume": True}, True, 1)
    run_folder.prepare(tmp_path, {"epochs": 3, "workdir": "b", "resume": False}, True, 1)
    run_folder.prepare(tmp_path, {"epochs": 3, "workdir": "b", "resume": True}, True, 1)
    with pytest.raises(run_folder.RunError, match=r"--epochs=3 \(now 4\)"):
        run_folder.prepare(tmp_path, {"epochs": 4, "workdir": "b", "resume": True}, True, 1)
    assert "--epochs=3" in (tmp_path / "flags.txt").read_text()


def test_noresume_starts_afresh(tmp_path):
    run_folder.prepare(tmp_path, {"epochs": 3}, True, 1)
    for name in ("last.keras", "history.csv", "mine.txt"):
        (tmp_path / name).write_text("old")
    run_folder.prepare(tmp_path, {"epochs": 4}, False, 1)
    assert sorted(os.listdir(tmp_path)) == ["flags.txt", "mine.txt"]


def test_json_holds_numbers_only(tmp_path):
    run_folder.write_json(tmp_path / "a.json", {"AP": 0.5, "APsmall": None})
    assert json.loads((tmp_path / "a.json").read_text()) == {"AP": 0.5, "APsmall": None}
    with pytest.raises(ValueError):
        run_folder.write_json(tmp_path / "a.json", {"AP": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text())["AP"] == 0.5
    assert os.listdir(tmp_path) == ["a.json"]
