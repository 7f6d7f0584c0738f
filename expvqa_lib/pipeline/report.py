"""Gather executed notebooks in one HTML page that needs no network to be read."""

from __future__ import annotations

import html
import platform
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import atomic
from .checkout import git_commit

if TYPE_CHECKING:
    from nbformat import NotebookNode

WIDGET = "application/vnd.jupyter.widget-view+json"

# nbconvert's plain template (no scripts, no fonts from elsewhere), with code folded under its first line.
TEMPLATE = """{%- extends 'basic/index.html.j2' -%}
{% block input %}
{%- if cell.source.strip() -%}
<details class="code"><summary>{{ cell.source.strip().splitlines()[0] | e }}</summary>{{ super() }}</details>
{%- endif -%}
{% endblock input %}
"""

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 2rem 1.2rem 6rem; max-width: 62rem; color: #1d2430; background: #fff;
       font: 17px/1.6 Charter, "Bitstream Charter", Cambria, Georgia, serif; }
h1, h2, h3, h4 { font-family: system-ui, sans-serif; line-height: 1.25; margin: 1.8em 0 .5em; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.3rem; } h3 { font-size: 1.1rem; }
a { color: #0b5cad; }
header { border-bottom: 2px solid #1d2430; } header h1 { margin-top: 0; }
header table, nav table { font: 15px/1.5 system-ui, sans-serif; }
nav td:last-child { text-align: right; color: #5b6472; }
section { border-top: 1px solid #c9ced6; margin-top: 3rem; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; font: 14px/1.4 system-ui, sans-serif; margin: .8em 0; border: 0; }
th, td { padding: .25em .8em .25em 0; text-align: left; vertical-align: top; }
.dataframe th, .dataframe td { padding: .25em .7em; border: 0; border-bottom: 1px solid #e3e6eb; text-align: right; white-space: nowrap; }
.dataframe thead th { text-align: right; }
.output_subarea { overflow-x: auto; }
pre, code, summary { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
pre { font-size: 13px; line-height: 1.45; overflow-x: auto; margin: .4em 0; } code { font-size: .86em; }
details.code { margin: .5em 0; border-left: 3px solid #e3e6eb; padding-left: .7em; }
details.code summary { font-size: 12px; color: #5b6472; cursor: pointer;
                       white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.output_stderr pre { color: #5b6472; }
@media print { details.code { display: none; } section { break-before: page; } }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1>
<table>{facts}</table>
</header>
<nav><h2>Notebooks</h2>
<table>{contents}</table>
</nav>
<main>
{body}
</main>
</body>
</html>
"""


def write_report(path: str | Path, notebooks: Sequence[Path], *, profile: str, source: Path) -> Path:
    """Write the executed `notebooks`, in order, as one self-contained page with a header and a table of contents; return `path`.

    Args:
        path: the HTML file to write.
        notebooks: executed notebooks, as papermill leaves them.
        profile: name of the profile, for the title.
        source: folder of the notebooks as written: relative images are looked up there, and the git commit is its checkout's.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    executed = {notebook.stem: nbformat.read(notebook, as_version=4) for notebook in notebooks}
    exporter = HTMLExporter(
        raw_template=TEMPLATE,
        embed_images=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    exporter.log.setLevel("ERROR")  # no line on the terminal for each figure without an alternative text
    body = ""
    for name, notebook in executed.items():
        fragment, _ = exporter.from_notebook_node(
            _prepare(notebook, name), resources={"metadata": {"path": str(source)}}
        )
        body += f'<section id="{name}">\n{fragment}\n</section>\n'

    seconds = {name: notebook.metadata.papermill.duration for name, notebook in executed.items()}
    facts = {
        "Profile": profile,
        "Date": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        "Commit": git_commit() or "not in a git checkout",
        "Software": ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
        + f", Python {platform.python_version()}",
        "Total time": _duration(sum(seconds.values())),
    }
    contents = (
        f'<tr><td><a href="#{name}">{html.escape(_title(notebook, name))}</a></td><td>{_duration(seconds[name])}</td></tr>'
        for name, notebook in executed.items()
    )
    page = PAGE.format(
        title=f"Exp-VQA companion: the {html.escape(profile)} profile",
        style=STYLE + HtmlFormatter(style="default").get_style_defs(".highlight"),
        facts="".join(
            f"<tr><th>{key}</th><td>{html.escape(value)}</td></tr>" for key, value in facts.items()
        ),
        contents="\n".join(contents),
        body=body,
    )
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _prepare(notebook: NotebookNode, name: str) -> NotebookNode:
    """Drop what only a running kernel could draw, and make cell ids unique in the page."""
    notebook.metadata.pop("widgets", None)
    for position, cell in enumerate(notebook.cells):
        cell.id = f"{name[:2]}-{position}"  # notebooks made from one another share ids
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    return notebook


def _title(notebook: NotebookNode, name: str) -> str:
    """Return the first heading of the notebook, or `name` where it has none."""
    lines = (
        line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()
    )
    return next((line.lstrip("# ").strip() for line in lines if line.startswith("# ")), name)


def _duration(seconds: float) -> str:
    """`34 s`, `3 min 20 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
