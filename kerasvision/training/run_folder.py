"""The run folder: what every app leaves behind, and how a run goes on after a crash."""

import json
import os
import pathlib
import shutil
import sys

from absl import flags

FLAGFILE = "flags.txt"
MODELS = ("best.keras", "last.keras")
# Flags that say where and how to run, not what: a run may go on with others.
FREE_FLAGS = ("workdir", "resume", "noresume", "data_dir", "download", "nodownload", "export")


class RunError(Exception):
    """A mistake of the user's, told in one line."""


def make_folder(workdir, space_needed):
    """Makes a folder and finds out now, not after hours of work, whether it will do.

    Args:
        workdir: path of the folder.
        space_needed: bytes that must be free.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        RunError: the folder can't be written, or the disk is too full.
    """
    workdir = pathlib.Path(workdir)
    probe = workdir / ".write_test"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"1")
        probe.unlink()
    except OSError as error:
        raise RunError(f"--workdir={workdir}: can't be written; received: {error}") from None
    free = shutil.disk_usage(workdir).free
    if free < space_needed:
        raise RunError(
            f"--workdir={workdir}: needs {space_needed / 1e6:.0f} MB of free disk; "
            f"received: {free / 1e6:.0f} MB"
        )
    return workdir


def prepare(workdir, app_flags, resume, space_needed):
    """Makes the run folder of a training and records its flags.

    Args:
        workdir, space_needed: as in `make_folder`.
        app_flags: dict of flag name to value.
        resume: whether to go on with what is there; otherwise an earlier run is deleted.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        RunError: as `make_folder`, or the folder holds a run with other flags.
    """
    workdir = make_folder(workdir, space_needed)
    recorded = workdir / FLAGFILE
    # A run that stopped before its first checkpoint left nothing to go on with.
    if resume and recorded.exists() and (workdir / "last.keras").exists():
        before = read_flagfile(recorded)
        now = read_flags(flagfile_text(app_flags))
        changed = [
            f"--{name}={before.get(name)} (now {now.get(name)})"
            for name in sorted(set(before) | set(now))
            if name not in FREE_FLAGS and before.get(name) != now.get(name)
        ]
        if changed:
            raise RunError(
                f"--workdir={workdir}: holds a run with other flags: {', '.join(changed)}; "
                "choose another --workdir, or --noresume to start this one afresh"
            )
    elif not resume:
        for name in ("last.keras", "best.keras", "history.csv", "metrics.json"):
            (workdir / name).unlink(missing_ok=True)
        shutil.rmtree(workdir / "tensorboard", ignore_errors=True)
    write_atomically(recorded, flagfile_text(app_flags))
    return workdir


def app_flags():
    """The values of the flags that the running app has, as a dict."""
    return {flag.name: flag.value for flag in flags.FLAGS.flags_by_module_dict()[sys.argv[0]]}


def flagfile_text(values):
    """A flagfile that repeats a run, from a dict of flag names and values."""
    lines = []
    for name in sorted(values):
        value = values[name]
        if value is None:
            continue
        if isinstance(value, bool):
            lines.append(f"--{name}" if value else f"--no{name}")
        else:
            text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            lines.append(f"--{name}={text}")
    return "\n".join(lines) + "\n"


def read_flags(text):
    """Flag name to text value of a flagfile as written by `flagfile_text`."""
    pairs = (line[2:].partition("=") for line in text.splitlines() if line.startswith("--"))
    return {name: value for name, _, value in pairs}


def read_flagfile(path):
    """`read_flags` of a file."""
    return read_flags(pathlib.Path(path).read_text())


def write_atomically(path, text):
    """Writes a file so that a crash leaves the old one or the new one, never a part."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path, value):
    """Writes a dict as JSON; a value that is not a finite number is an error."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def save_model(model, path):
    """`model.save` that a crash can't leave half-written."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".new-{path.name}")
    model.save(temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_model(path):
    """The model of a run folder or of a .keras file, not compiled.

    Of a run folder it is best.keras, or last.keras where nothing told which epoch was the best.

    The modules of its classes must have been imported.

    Raises:
        ValueError: there is no model at the path, or one that can't be read.
    """
    import keras  # here, because apps tell mistakes in flags before they load Keras

    path = pathlib.Path(path)
    file = path
    if path.is_dir():
        file = next((path / name for name in MODELS if (path / name).is_file()), path / MODELS[0])
    if file.suffix != ".keras" or not file.is_file():
        raise ValueError(
            f"{path}: expected a run folder (with best.keras) or a .keras file; "
            f"received: {'nothing there' if not path.exists() else 'no such'}"
        )
    try:
        return keras.models.load_model(file, compile=False)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{file}: can't be loaded; received: {reason}") from None
