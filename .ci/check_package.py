"""Check what was built: python .ci/check_package.py DIST. The page, the types and the licence must be in both."""

import sys
import tarfile
import zipfile
from pathlib import Path

WANTED = (
    "flightlog/py.typed",
    "flightlog_server/py.typed",
    "flightlog_server/static/index.html",
    "flightlog_server/migrations/versions/0001_the_first_schema.py",
    "LICENSE",
)

dist = Path(sys.argv[1])
with zipfile.ZipFile(next(dist.glob("*.whl"))) as archive:
    wheel = archive.namelist()
with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
    sdist = archive.getnames()
for kind, names in (("wheel", wheel), ("sdist", sdist)):
    missing = [w for w in WANTED if not any(n.endswith(w) for n in names)]
    if missing:
        sys.exit(f"the {kind} lacks {', '.join(missing)}")
    stray = [n for n in names if "node_modules" in n or "__pycache__" in n]
    if stray:
        sys.exit(f"the {kind} holds {stray[0]}")
print(f"the wheel holds {len(wheel)} files, the sdist {len(sdist)}; nothing is missing")
