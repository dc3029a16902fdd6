"""What the site shows beside the pages: commands, settings, and the records that pages link to.

mkdocs calls these functions; nothing here is part of the package.
"""

import ast
import dataclasses
import inspect
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# Pages are read in the repository, too, where what they link to lies beside docs/.
# Sphinx's roles, which Markdown shows as they stand.
ROLE = re.compile(r":(?:class|meth|attr|data|func|mod):`~?([^`]*)`")
OUTSIDE = re.compile(
    r"\[([^\]]*)\]\(((?:\.\./)+)((?:benchmarks|tests|recsys|README|CONTRIBUTING|CHANGELOG)[^)#]*)(?:#[^)]*)?\)"
)


def on_startup(**_: Any) -> None:
    """Lay out the package as it installs: what reads docstrings follows no links."""
    tree = ROOT / "build" / "docs-source"
    shutil.rmtree(tree, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "results", "recipes", "spaces")
    shutil.copytree(ROOT / "recsys", tree / "recsys", ignore=ignored)
    for folder in ("kernels", "datasets", "benchmarks"):
        (tree / "recsys" / folder / "__init__.py").touch()
    for path in (tree / "recsys").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(ROLE.sub(r"`\1`", text).replace(" Example:\n", " Examples:\n"), encoding="utf-8")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and every picture and record of the repository that a page links to."""
    sys.path.insert(0, str(ROOT))
    for uri, content in {"reference/cli.md": command_line(), "reference/settings.md": settings()}.items():
        files.append(File.generated(config, uri, content=content))
    linked = {
        target
        for file in files.documentation_pages()
        for _, _, target in OUTSIDE.findall(file.content_string)
        if _is_copied(target)
    }
    for target in sorted(linked):
        files.append(File.generated(config, f"repository/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links that leave docs/ to the copies; a link to a page or folder outside becomes its words."""
    up = "../" * page.file.src_uri.count("/")

    def mapped(match: re.Match[str]) -> str:
        words, _, target = match.groups()
        return f"[{words}]({up}repository/{target})" if _is_copied(target) else words

    return OUTSIDE.sub(mapped, markdown)


def _is_copied(target: str) -> bool:
    return (ROOT / target).is_file() and not target.endswith(".md")


def command_line() -> str:
    """Every command with its help and options, from the command line's own objects."""
    import typer

    from recsys.commands.app import app

    lines = ["# Command line\n", "`recsys COMMAND --help` shows the same.\n"]
    _describe(typer.main.get_command(app), "recsys", lines)
    return "\n".join(lines)


def _describe(command: Any, name: str, lines: list[str]) -> None:
    lines += [f"## `{name}`\n", f"{inspect.cleandoc(command.help or '')}\n"]
    arguments = [p for p in command.params if getattr(p, "param_type_name", "option") == "argument"]
    options = [p for p in command.params if p not in arguments and not getattr(p, "hidden", False)]
    for title, parameters in (("argument", arguments), ("option", options)):
        if not parameters:
            continue
        lines += [f"| {title} | default | |", "|---|---|---|"]
        for parameter in parameters:
            shown = ", ".join(f"`{o}`" for o in [*parameter.opts, *parameter.secondary_opts])
            if title == "argument":
                shown = f"`{parameter.metavar or parameter.name.upper()}`"
            default = parameter.default
            kept = default not in (None, False, True, "", ()) and type(default).__name__ in (
                "str",
                "int",
                "float",
            )
            text = (getattr(parameter, "help", None) or "").replace("|", "\\|")
            lines.append(f"| {shown} | {f'`{default}`' if kept else ''} | {text} |")
        lines.append("")
    commands = getattr(command, "commands", None) or {}
    for child in sorted(commands):
        _describe(commands[child], f"{name} {child}", lines)


def settings() -> str:
    """Every field of the configurations with its default and sentence, from the classes' source."""
    from recsys.encoders.registry import encoder_names

    lines = [
        "# Settings\n",
        "In TOML under `[encoder]` and `[training]`, on the command line as `--set training.epochs=20`, "
        'in Python as `Recommender(encoder_options={...}, training_options={"epochs": 20})`.\n',
    ]
    from recsys.encoders import registry
    from recsys.retrieval.options import IndexOptions
    from recsys.training.config import TrainingConfig

    classes = [("training", "training", TrainingConfig)]
    classes += [(name, "encoder", type(registry.encoder_config(name, {}))) for name in encoder_names()]
    classes.append(("index: `recsys index RUN --set KEY=VALUE`", "", IndexOptions))
    for title, section, kind in classes:
        lines += [f"## {title}\n", "| setting | default | |", "|---|---|---|"]
        sentences = _sentences(kind)
        for field in dataclasses.fields(kind):
            default = field.default
            if default is dataclasses.MISSING:
                made = field.default_factory
                default = "" if made is dataclasses.MISSING else made()
            name = f"{section}.{field.name}" if section else field.name
            text = " ".join(sentences.get(field.name, "").split()).replace("|", "\\|")
            lines.append(f"| `{name}` | `{default!r}` | {text} |")
        lines.append("")
    return "\n".join(lines)


def _sentences(kind: type) -> dict[str, str]:
    """Docstrings that stand under the fields of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base is object or not dataclasses.is_dataclass(base):
            continue
        (tree,) = ast.parse(inspect.cleandoc(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for here, after in zip(tree.body, tree.body[1:], strict=False):
            named = isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name)
            if named and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found[here.target.id] = str(after.value.value)
    return found
