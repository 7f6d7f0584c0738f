"""What a file of a model really is where it cannot be read: nothing, a pointer, a web page, or a part."""

import contextlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open

from ..errors import ModelError
from ..files import misnamed

_READERS = {  # of the files of a model folder, which refuse what was cut short, where they can tell
    ".safetensors": lambda path: safe_open(path, "pt"),
    ".json": lambda path: json.loads(path.read_bytes()),
    **dict.fromkeys((".txt", ".model", ".bin"), Path.stat),
}
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt")


def damage(path: str | Path) -> str | None:
    """What a file is in place of what its name says, with a way out; of a folder, its first such file.

    Returns:
        None where nothing was found, or where `path` is no file (a name on the hub).
    """
    path = Path(path)
    if path.is_dir():
        # beside safetensors nothing reads the .bin files
        suffixes = [s for s in _READERS if s != ".bin" or not any(path.glob("*.safetensors"))]
        files = [file for suffix in suffixes for file in sorted(path.rglob(f"[!.]*{suffix}"))]
        found = (f"{file.relative_to(path)} is {what}" for file in files if (what := damage(file)))
        lacks = (path / "config.json").exists() and not any((path / name).exists() for name in _TOKENIZERS)
        return next(found, f"none of {', '.join(_TOKENIZERS)} is there; copy it, too" if lacks else None)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(512)
    what = misnamed(start)
    try:
        what or (zipfile.ZipFile if start.startswith(b"PK") else _READERS.get(path.suffix, Path.stat))(path)
    except Exception as error:  # safetensors has its own
        return f"cut short, or no {path.suffix} file ({error}); copy or download it again"
    return what


@contextlib.contextmanager
def refuse(source: str | Path, fault: str, *files: str | Path) -> Iterator[None]:
    """Turn whatever a reader raises into a ModelError with the fault and its reason.

    The reason is the damage of `files` (default: `source`), or what the reader said.
    """
    try:
        yield
    except Exception as error:
        said = f"{' '.join(str(error).split()):.600}; copy, download or convert it again"
        reason = next(filter(None, map(damage, files or [source])), said)
        raise ModelError(f"{source}: {fault} ({reason})") from error
