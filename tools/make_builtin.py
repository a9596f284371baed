"""Build the built-in benchmark from `instances.yaml`, as `scopewise build` does, into `src/scopewise/data/builtin`.

    python tools/make_builtin.py           # writes rows.jsonl and DATASHEET.md
    python tools/make_builtin.py --check   # exit 1 if the shipped files differ

The same as a command, with more files, in a folder `builtin`:

    scopewise build src/scopewise/data/builtin/instances.yaml --law privacy-gdpr --law privacy-ccpa --law copyright-us \
        --seed 2407 --wrong 5 --per-fact 3 --out builtin
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from scopewise.building.instances import read_instances
from scopewise.building.law import read_law
from scopewise.building.make import Settings, build
from scopewise.building.templates import wordings
from scopewise.files import write_text
from scopewise.terminal import echo

BUILTIN = Path(__file__).resolve().parents[1] / "src" / "scopewise" / "data" / "builtin"
LAWS = ("privacy-gdpr", "privacy-ccpa", "copyright-us")
SEED = 2407
SHIPPED = ("rows.jsonl", "DATASHEET.md")


def made() -> dict[str, str]:
    """Return the text of each shipped file, built anew."""
    laws = tuple(read_law(name) for name in LAWS)
    instances = read_instances(BUILTIN / "instances.yaml", laws, {kind: wordings(kind) for kind in ("person", "work")})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "builtin"
        build(instances, "instances.yaml", Settings(laws, seed=SEED, wrong=5, per_fact=3), out)
        return {name: (out / name).read_text(encoding="utf-8") for name in SHIPPED}


def main() -> int:
    """Write the files, or compare them under `--check`; return the exit status."""
    parser = argparse.ArgumentParser(description="Build the built-in benchmark from instances.yaml.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the shipped files differ")
    check = parser.parse_args().check
    stale = []
    for name, text in made().items():
        path = BUILTIN / name
        if not check:
            write_text(path, text)
            path.chmod(0o644)
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        echo(f"{', '.join(stale)}: not what is built from instances.yaml; run tools/make_builtin.py", err=True)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
