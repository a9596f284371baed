"""Instances that are nearly the same under different names, by MinHash of their facts."""

from __future__ import annotations

from collections.abc import Iterable

from datasketch import MinHash, MinHashLSH

from scopewise.building.instances import Instance
from scopewise.data.crossed import plain

SIMILAR = 0.8
_PERMUTATIONS = 64


def near_duplicates(instances: Iterable[Instance]) -> dict[str, str]:
    """Return name → name of an earlier instance whose facts are nearly the same.

    Two are if the estimated Jaccard index of their facts' words (each with its attribute) is at least 0.8. Instances of fewer
    than three facts are compared, too. Words of the name do not count.

    Source: MinHash, Broder 1997; locality-sensitive hashing of the library `datasketch`.
    """
    seen, found = MinHashLSH(threshold=SIMILAR, num_perm=_PERMUTATIONS), dict[str, str]()
    for instance in instances:
        hashed = MinHash(num_perm=_PERMUTATIONS, seed=1)
        words = {f"{fact.attribute} {word}" for fact in instance.facts for word in plain(fact.value).split()}
        own = set(plain(instance.name).split())
        hashed.update_batch([text.encode() for text in sorted(words) if text.rpartition(" ")[2] not in own])
        similar = seen.query(hashed)
        if similar:
            found[instance.name] = min(similar)
        else:
            seen.insert(instance.name, hashed)
    return found
