"""A version as one file: `export_version` writes it, `import_version` trusts nothing in it.

The file is a zip of stored entries, `version.json` first and then the files it has the checksums
of, by name: the same bytes each time. An import checks all of it before anything appears: which
entries there are and how large, the record's seal, each file's checksum, a program's content.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from workbench import journal
from workbench.errors import RequestError, TamperedError
from workbench.home import write_file
from workbench.registry.aliases import lock_of
from workbench.registry.folders import folder_of, numbers
from workbench.registry.lineage import user
from workbench.registry.programs import check_program
from workbench.registry.publishing import write_version
from workbench.registry.records import (
    FILES,
    RECORD,
    check_content,
    content_problem,
    identity,
    record_of,
)
from workbench.registry.versions import ModelVersion, version
from workbench.types import JSON

__all__ = ["export_version", "import_version"]

_LARGEST_JSON = 64 * 2**20  # bytes; what else there is, is no larger than the file itself
_FAR = 10**6  # a number that nobody has published so often to come to is not kept
_WHEN = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say, so that two exports are equal


def export_version(ref: str, path: Path | str | None = None) -> Path:
    """Write a version into one file that `import_version` takes elsewhere; return where it is.

    Args:
        ref: as `version` takes it; aliases and retirements stay here.
        path: of the file, or a folder for it; by default `name@3.zip` in the current folder.

    Raises:
        RequestError: there is no such version, or another file is there.
        TamperedError: a file of the version is not what was published.
    """
    made = version(ref)
    place = Path(path) if path is not None else Path()
    place = place / f"{made.ref}.zip" if place.is_dir() else place
    content = _bundle(made)
    if place.exists():
        if not place.is_file() or place.read_bytes() != content:
            raise RequestError(f"{place} is there already: remove it, or export to another file")
        return place
    write_file(place, content)
    return place


def import_version(path: Path | str) -> ModelVersion:
    """Take a version out of a file that `export_version` wrote, whole or not at all.

    It keeps its number where that is free and takes the next one otherwise; its lineage names where
    it comes from. A version that is here already is returned as it is.

    Args:
        path: of the file.

    Raises:
        RequestError: there is no such file.
        TamperedError: it is not what was exported, or was made to do harm.
    """
    place = Path(path)
    if not place.is_file():
        raise RequestError(f"no file {str(place)!r}: export writes one, as in NAME@3.zip")
    record, contents = _checked(place)
    name = record["name"]
    folder_of(name).mkdir(parents=True, exist_ok=True)
    with lock_of(name):  # two imports of one file make one version
        here = _here(name, identity(record))
        if here is not None:
            return here
        lineage = {**record["lineage"], **_origin(record)}
        number = record["version"] if record["version"] < _FAR else None
        said = {key: value for key, value in record.items() if key not in ("name", "version")}
        made = write_version(name, {**said, "lineage": lineage}, contents, number=number)
    journal.note("import", ref=made.ref, folder=str(made.folder))
    return made


def _bundle(made: ModelVersion) -> bytes:
    record = json.dumps(made.record, indent=2, ensure_ascii=False, allow_nan=False).encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as bundle:
        _add(bundle, RECORD, record + b"\n")
        for file in sorted(made.record["checksums"]):
            _add(bundle, file, made.content(file))
    return archive.getvalue()


def _add(bundle: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _WHEN)
    entry.create_system, entry.external_attr = 3, 0o444 << 16  # the same on every platform
    bundle.writestr(entry, content)


def _checked(place: Path) -> tuple[JSON, dict[str, bytes]]:
    """Return the record and the files of a bundle, all of them being what was exported."""
    try:
        with zipfile.ZipFile(place) as bundle:
            _check_entries(place, bundle.infolist())
            record = record_of(bundle.read(RECORD), f"{RECORD} in {place}", exported=True)
            contents = {n: bundle.read(n) for n in bundle.namelist() if n != RECORD}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise _refused(place, f"cannot be read: {error}") from None
    for file in sorted({*contents, *record["checksums"]}):
        problem = content_problem(contents.get(file), file, record)
        if problem:
            raise _refused(place, f"holds another version's files: {file} {problem}")
    check_content(contents, record, str(place))
    try:
        load_tensors(contents["weights.safetensors"])
    except SafetensorError as error:
        raise _refused(place, f"has weights that cannot be read: {error}") from None
    if "program.pt2" in contents:
        check_program(contents["program.pt2"])
    return record, contents


def _check_entries(place: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Raise where a bundle has other entries than export writes, before any of them is read."""
    names = [entry.filename for entry in entries]
    strange = sorted({*names} - {RECORD, *FILES})
    if strange:
        raise _refused(place, f"holds {strange[0]!r:.80}, which is no file of a version")
    if len(set(names)) < len(names) or RECORD not in names:
        raise _refused(place, f"holds {', '.join(names)}, expected {RECORD} and each file once")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise _refused(place, f"holds {entry.filename} compressed, which export never does")
        if entry.filename.endswith(".json") and entry.file_size > _LARGEST_JSON:
            raise _refused(place, f"holds {entry.filename} of {entry.file_size:,} bytes")
    if sum(entry.file_size for entry in entries) > place.stat().st_size:
        raise _refused(place, "holds entries that lie within each other")


def _here(name: str, published_as: str) -> ModelVersion | None:
    """Return the version of this registry that was published with that seal, wherever it was."""
    for number in numbers(name):
        try:
            found = version(f"{name}@{number}")
        except TamperedError:  # it is not what it was, so it is not that
            continue
        if identity(found.record) == published_as:
            return found
    return None


def _origin(record: JSON) -> JSON:
    """Return what a lineage says of where an imported version was published."""
    before = record["lineage"].get("origin")
    origin = before or {"ref": f"{record['name']}@{record['version']}", "seal": record["seal"]}
    return {"origin": {**origin, "imported": journal.now(), "by": user()}}


def _refused(place: Path, why: str) -> TamperedError:
    return TamperedError(
        f"{place} {why}: it is not what workbench export wrote; export the version again"
    )
