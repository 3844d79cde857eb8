"""Tell each plugin what its own section, `scheduler.extensions.<name>`, says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, text_of
from ..model import EMPTY, Place, Problem

if TYPE_CHECKING:
    import pluggy

    from .._runtime import Runtime
    from ._settings import Settings


@dataclass(slots=True)
class Heard:
    """What plugins found wrong with their sections, and those that broke over them, by name."""

    mistakes: list[Problem] = field(default_factory=list)
    degraded: dict[str, Problem] = field(default_factory=dict)


def tell_plugins(manager: pluggy.PluginManager, settings: Settings, runtime: Runtime) -> Heard:
    """Call the hook `configured` of each plugin alone, with its own section."""
    heard = Heard()
    plugins = {i.plugin_name: i.plugin for i in manager.hook.configured.get_hookimpls()}
    for name, plugin in plugins.items():
        others = [other for other in plugins.values() if other is not plugin]
        tell = manager.subset_hook_caller("configured", others)
        place = _place(settings, name)
        try:
            tell(settings=settings.extensions.get(name, EMPTY), runtime=runtime)
        except ConfigurationError as error:
            heard.mistakes += [
                problem if problem.place.file else replace(problem, place=place)
                for problem in error.problems
            ]
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  # this plugin's configuration, not all
            reason = f"its configured() raised {text_of(error)}"
            heard.degraded[name] = Problem(name, reason, place)
    return heard


def _place(settings: Settings, name: str) -> Place:
    sources = settings.sources.get(f"extensions.{name}")
    return sources[-1].place if sources else Place()
