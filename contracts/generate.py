"""Writes what is derived from the code and committed, so that a change of a contract is seen in review.

    python contracts/generate.py            write contracts/openapi/*.json and docs/settings.md
    python contracts/generate.py --check    fail, naming each file, where the committed one differs

A service is found by its `wiring.py`; one that is added is picked up without a change here.
"""

import base64
import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

import ias
from ias.gateway import openapi as gateway_openapi

ROOT = Path(__file__).resolve().parent.parent
OPENAPI = ROOT / "contracts" / "openapi"
SETTINGS_PAGE = ROOT / "docs" / "settings.md"

_PAGE_HEAD = """\
# Settings

Every process reads its settings from the environment, once, when it starts. `ias up` sets them all; a deployment sets
those without a default. Secrets are never logged. This page is generated: `make contracts`.
"""


def discover_services() -> list[str]:
    """The names of the management services: packages of `ias` with a `wiring` module that builds an app."""
    names = [module.name for module in pkgutil.iter_modules(ias.__path__) if module.ispkg]
    return sorted(name for name in names if _builds_app(name))


def build_app(service: str) -> FastAPI:
    """The app of a service as it is before its lifespan begins: nothing is opened, so the settings may be made up."""
    with _made_up_environment():
        app = importlib.import_module(f"ias.{service}.wiring").build_app()
    if not isinstance(app, FastAPI):
        raise TypeError(f"ias.{service}.wiring.build_app() gives {type(app).__name__}, not a FastAPI app")
    return app


def discover_settings() -> list[type[BaseSettings]]:
    """Every class of settings, those of the kit first."""
    found = []
    for module_name in _settings_modules():
        module = importlib.import_module(module_name)
        for _, candidate in inspect.getmembers(module, inspect.isclass):
            if issubclass(candidate, BaseSettings) and candidate.__module__ == module_name:
                found.append(candidate)
    return sorted(found, key=lambda one: (one.__module__ != "ias.kit.settings", one.__module__, len(one.__mro__)))


def own_fields(settings: type[BaseSettings]) -> dict[str, FieldInfo]:
    """The fields a class adds to those it inherits, by the name of their environment variable."""
    inherited = {name for parent in settings.__mro__[1:] for name in getattr(parent, "model_fields", {})}
    prefix = settings.model_config.get("env_prefix", "")
    return {f"{prefix}{name}".upper(): field for name, field in settings.model_fields.items() if name not in inherited}


def render_all() -> dict[Path, str]:
    """Every generated file and what should be in it."""
    rendered = {SETTINGS_PAGE: render_settings()}
    documents = {service: build_app(service).openapi() for service in discover_services()}
    for name, document in {**documents, "gateway": gateway_openapi.describe()}.items():
        text = json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True)
        rendered[OPENAPI / f"{name}.json"] = text + "\n"
    return rendered


def render_settings() -> str:
    """The page of all settings."""
    parts = [_PAGE_HEAD]
    for settings in discover_settings():
        if fields := own_fields(settings):
            where = settings.__module__.replace(".", "/")
            about = inspect.getdoc(settings) or settings.__name__
            parts.append(f"\n## {settings.__name__}\n\n{about} (`src/{where}.py`)\n\n")
            parts.append("| variable | default | meaning |\n|---|---|---|\n")
            parts += [_render_row(variable, field) for variable, field in fields.items()]
    return "".join(parts)


def find_differences() -> list[str]:
    """What is to be said about each file that is not as the code would have it."""
    rendered = render_all()
    differences = [
        f"{path.relative_to(ROOT)} differs from the code"
        for path, text in rendered.items()
        if not path.exists() or path.read_text() != text
    ]
    left_over = [path for path in OPENAPI.glob("*.json") if path not in rendered]
    return differences + [f"{path.relative_to(ROOT)} belongs to no service" for path in left_over]


def main() -> int:
    """Write or check; 1 where a check found differences."""
    if "--check" in sys.argv[1:]:
        differences = find_differences()
        for difference in differences:
            sys.stderr.write(f"{difference}: run `make contracts` and commit\n")
        return 1 if differences else 0
    rendered = render_all()
    for path, text in rendered.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in OPENAPI.glob("*.json"):
        if path not in rendered:
            path.unlink()
    return 0


@contextmanager
def _made_up_environment() -> Iterator[None]:
    """Every setting that has no default has a value of the right form meanwhile."""
    required = {
        variable
        for settings in discover_settings()
        for variable, field in own_fields(settings).items()
        if field.is_required()
    }
    added = required - os.environ.keys()
    os.environ.update({variable: _made_up(variable) for variable in added})
    try:
        yield
    finally:
        for variable in added:
            del os.environ[variable]


def _builds_app(name: str) -> bool:
    specification = importlib.util.find_spec(f"ias.{name}.wiring")
    if specification is None or specification.origin is None:
        return False
    return "def build_app(" in Path(specification.origin).read_text()


def _settings_modules() -> Iterator[str]:
    for module in pkgutil.iter_modules(ias.__path__):
        if module.ispkg and importlib.util.find_spec(f"ias.{module.name}.settings") is not None:
            yield f"ias.{module.name}.settings"


def _made_up(variable: str) -> str:
    if variable.endswith("_DATABASE_URL"):
        return "postgresql://ias:ias@127.0.0.1:1/ias"
    if variable in {"IAS_REDIS_URL", "IAS_BUS_URL"}:
        return "redis://127.0.0.1:1/0"
    if variable.endswith("_URL"):
        return "http://127.0.0.1:1"
    return base64.b64encode(bytes(32)).decode()


def _render_row(variable: str, field: FieldInfo) -> str:
    if field.is_required():
        default = "required"
    elif field.default is None or field.default is PydanticUndefined:
        default = "unset"
    else:
        default = f"`{_plain(field.default)}`"
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{variable}` | {default} | {meaning} |\n"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main())
