"""The families of bad input, by name."""

from __future__ import annotations

from ..inputs import Family
from . import (
    adapter,
    building,
    cache,
    disk,
    documents,
    hostile,
    model,
    names,
    options,
    paths,
    rows,
    run_file,
    runs,
    set_,
)

FAMILIES: dict[str, Family] = {
    family.name: family
    for module in (
        run_file,
        set_,
        names,
        options,
        rows,
        paths,
        model,
        adapter,
        documents,
        building,
        cache,
        runs,
        hostile,
        disk,
    )
    for family in module.FAMILIES
}
