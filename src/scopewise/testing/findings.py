"""Run every property on one method, wrapper, localizer, metric, attack or benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from scopewise import registry
from scopewise.errors import ConfigError, UserError
from scopewise.methods.base import make_method
from scopewise.settings import make
from scopewise.testing import attacks, benchmarks, localizers, methods, metrics, wrappers
from scopewise.testing.world import NotApplicableError, PropertyError, World


@dataclass(frozen=True)
class Finding:
    """Result of testing one property.

    Attributes:
        name: The property.
        verdict: `pass`, `fail`, or `n/a` if the property does not apply to this class.
        note: What was found, or why the property does not apply.
    """

    name: str
    verdict: str
    note: str = ""


def kind_of(name: str) -> str:
    """Return the kind of a plugin's name. Raises ConfigError if no kind or several have it, or for `module:Class`."""
    if ":" in name:
        for kind in registry.TABLES:
            try:
                registry.lookup(kind, name)
            except ConfigError as error:
                if "cannot be imported" in str(error):
                    raise
            else:
                return kind
        raise ConfigError(
            f"{name}: not a method, wrapper, localizer, metric, attack or benchmark; derive it from a base of scopewise"
        )
    key = name.replace("-", "_")
    found = [kind for kind in registry.TABLES if key in registry.table(kind) or key in registry.plugins(kind)]
    if len(found) != 1:
        where = " and ".join(found) if found else "no table"
        raise ConfigError(f"{name}: in {where}; name the kind with --kind, or write package.module:Class")
    return found[0]


def findings(kind: str, name: str, arguments: Mapping[str, Any], path: str | None = None) -> Iterator[Finding]:
    """Test every property, and yield the results.

    Args:
        kind: The table of the class.
        name: Its name, as in a run file.
        arguments: Its settings.
        path: File or folder that a benchmark loads; None for its default source.

    Raises:
        ConfigError: no such name, or settings that it does not have.
    """
    for what, run in _properties(kind, name, arguments, path):
        try:
            run()
        except NotApplicableError as error:
            yield Finding(what, "n/a", str(error))
        except PropertyError as error:
            yield Finding(what, "fail", str(error))
        except UserError as error:
            yield Finding(what, "fail", str(error))
        except Exception as error:  # the plugin's own code may fail in any way
            yield Finding(what, "fail", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        else:
            yield Finding(what, "pass")


def _properties(
    kind: str, name: str, arguments: Mapping[str, Any], path: str | None
) -> Sequence[tuple[str, Callable[[], None]]]:
    """Return name and test of each property, in the order they are run."""
    if kind == "benchmarks":  # which have no settings
        if arguments:
            raise ConfigError(f"--set: {next(iter(arguments))}; {kind} have no settings; leave it out")
        tested = registry.lookup(kind, name)()
    else:
        tested = make(kind, name, "--set", arguments)
    if kind == "benchmarks":
        return [(what, partial(run, tested, (name, path))) for what, run in benchmarks.PROPERTIES.items()]
    if kind == "attacks":
        attacked = attacks.AttackWorld.build(tested)
        return [(what, partial(run, tested, attacked)) for what, run in attacks.PROPERTIES.items()]
    world = World.build()
    if kind == "metrics":
        return [(what, partial(run, tested, world)) for what, run in metrics.PROPERTIES.items()]
    if kind == "wrappers":
        around = make_method("npo")
        return [(what, partial(run, tested, world, around)) for what, run in wrappers.PROPERTIES.items()]
    alone, on_models = {
        "methods": (methods.PROPERTIES, methods.TRAINED),
        "localizers": (localizers.PROPERTIES, localizers.ON_MODELS),
    }[kind]
    found = [(what, partial(run, tested, world)) for what, run in alone.items()]
    for adapter, where in ((True, "LoRA"), (False, "all parameters")):
        found += [(f"{what}, {where}", partial(run, tested, world, adapter)) for what, run in on_models.items()]
    return found
