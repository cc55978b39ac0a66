"""What MkDocs calls while it builds the site: generated pages, links into the source, a check of the names."""

from __future__ import annotations

import html
import logging
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from mkdocs.structure.files import File, Files

from docs.making import commands, links, reference
from docs.making.names import modules

LOG = logging.getLogger("mkdocs.plugins.site")
MODULES = modules()
COMMANDS = commands.commands()
BY_FILE = {module.file: module for module in MODULES}


def on_config(config: Any) -> Any:
    """The navigation goes on with the reference: its parts are generated."""
    for part in config.nav:
        if "Reference" in part:
            part["Reference"] += [
                {"Options of the commands": commands.navigation(COMMANDS)},
                {"API": reference.navigation(MODULES)},
            ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """The generated pages stand among the files."""
    for place, text in (commands.pages(COMMANDS) | reference.pages(MODULES)).items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A written page as the site reads it; one that was generated is for the site as it is."""
    if page.file.generated_by is not None:
        return markdown
    return links.with_deeper_lists(links.without_outside(markdown, page.file.src_uri.count("/"), BY_FILE))


def on_page_content(html: str, **_: Any) -> str:
    """A page as HTML, its options whole."""
    return links.with_whole_flags(html)


def on_post_build(config: Any) -> None:
    """A warning, and so a failure under ``--strict``, for every public name that the built pages have not."""
    for module in MODULES:
        page = Path(config.site_dir) / module.page.replace(".md", ".html")
        ids = {html.unescape(one) for one in re.findall(r'id="([^"]+)"', page.read_text(encoding="utf-8"))}
        for name in (module.anchor, *module.names):
            if name not in ids:
                LOG.warning("the reference has no entry of %s", name)
    LOG.info("%d modules, %d names, %d commands", len(MODULES), sum(len(m.names) for m in MODULES), len(COMMANDS))
