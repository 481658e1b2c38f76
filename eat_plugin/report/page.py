"""The page of a report: one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from .panels import Chart

TEMPLATE = Path(__file__).with_name("page.html.j2")


class Media(NamedTuple):
    """A clip on the page: caption, and data URIs of picture and sound (None without)."""

    caption: str
    picture: str
    sound: str | None = None


class Row(NamedTuple):
    """Clips next to each other."""

    title: str
    clips: list[Media]


@dataclass
class Section:
    """A part of the page, in this order: text, facts, charts, pictures, rows of clips, a table.

    Attributes:
        title: of the section.
        text: a sentence that says what is seen.
        facts: names and values.
        charts: interactive charts.
        pictures: captions and data URIs.
        rows: rows of clips.
        header: of the table.
        table: its rows.
        is_folded: shown when the reader opens it.
    """

    title: str
    text: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    charts: list[Chart] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    header: tuple[str, ...] = ()
    table: Sequence[tuple[str, ...]] = ()
    is_folded: bool = False


def render(title: str, subtitle: str, sections: list[Section]) -> str:
    """Make the page.

    Raises:
        ModuleNotFoundError: jinja2 or vl-convert-python is not installed.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, subtitle=subtitle, sections=sections, script=_read_vega())


@lru_cache(maxsize=1)
def _read_vega() -> str:
    """Return the JavaScript of Vega, Vega-Lite and Vega-Embed, for an inline script."""
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def flatten(options: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the options of a configuration as ``section.option``, and their values."""
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
