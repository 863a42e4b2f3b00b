"""`wised config`: what is in force, and whether config.toml can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from daemon.cli.common import Json, place, reading
from daemon.render import fields, note, print_json, say, table
from daemon.secrets import HIDDEN, names_a_secret, without_secrets

if TYPE_CHECKING:
    from pydantic import BaseModel

app = typer.Typer(name="config", help="The configuration.")


@app.callback()
def _config() -> None:
    """Hold the commands below one noun."""


@app.command()
def show(context: typer.Context, as_json: Json = False) -> None:
    """Show every setting as config.toml and the defaults have it.

    Example: wised config show
    """
    effective = place(context).config()
    settings = [(key, _hidden(key, held), why) for key, held, why in _settings(effective, "")]
    if as_json:
        documents = [{"key": k, "value": v, "from": origin} for k, v, origin in settings]
        print_json({"settings": documents})
        return
    table(
        ("key", "value", "from"),
        ((k, json.dumps(v, ensure_ascii=False), origin) for k, v, origin in settings),
    )


def _hidden(key: str, value: Any) -> Any:
    """Return a setting's value as it may be shown: commands and URLs may have secrets in them."""
    if isinstance(value, str):
        return HIDDEN if value and names_a_secret(key) else without_secrets(value)
    if isinstance(value, (list, tuple)):
        return [_hidden(key, one) for one in value]
    if isinstance(value, dict):
        return {name: _hidden(str(name), one) for name, one in value.items()}
    return value


def _settings(section: BaseModel, prefix: str) -> Iterator[tuple[str, Any, str]]:
    """Yield each setting below ``section``: key, value, and where it comes from."""
    from pydantic import BaseModel

    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _settings(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, BaseModel):
                    yield from _settings(inner, f"{prefix}{name}.{key}.")
                else:
                    yield f"{prefix}{name}.{key}", inner, "config.toml"
        else:
            given = name in section.model_fields_set
            yield prefix + name, value, "config.toml" if given else "default"


@app.command()
def check(context: typer.Context, as_json: Json = False) -> None:
    """Check config.toml; exit 2 and list every problem with its line when there is one.

    Example: wised config check
    """
    from daemon.store import keys

    state = place(context)
    held = state.config()
    with reading(context) as store:
        is_new = not keys.in_force(store, held.subjects)
    if as_json:
        counts = {"relations": len(held.relations), "subjects": len(held.subjects)}
        file = str(state.config_file)
        print_json({"result": "ok", "file": file, **counts, "rekeys_at_start": is_new})
        return
    fields(
        [
            (str(state.config_file), "good"),
            ("relations", len(held.relations)),
            ("subjects with other names", len(held.subjects)),
        ]
    )
    if is_new:
        note("The names changed: the daemon makes all keys of facts anew when it starts.")


@app.command()
def path(context: typer.Context, as_json: Json = False) -> None:
    """Print where the configuration lies.

    Example: wised config path
    """
    file = place(context).config_file.absolute()
    if as_json:
        print_json({"file": str(file)})
    else:
        say(file)


def register(parent: typer.Typer) -> None:
    """Add the commands to the top level."""
    parent.add_typer(app)
