"""Whether the model in a folder is the one that was let through: check_weights.py FOLDER DIGEST, with the standard library alone."""
import hashlib
import json
import sys
from pathlib import Path

folder, expected = Path(sys.argv[1]), sys.argv[2]
NOT_DIGESTED = ("model.json", "README.md")


def sha256(path):
    found = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            found.update(block)
    return found.hexdigest()


files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name not in NOT_DIGESTED)
sums = {f.relative_to(folder).as_posix(): sha256(f) for f in files}
found = hashlib.sha256(json.dumps(sums, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()).hexdigest()
if not files or found != expected:
    sys.exit(f"{folder}: {len(files)} files with the digest {found}, not {expected}. Put the model there that was let through.")
