"""`recsys doctor`: what is installed, what the machine opens, and whether every kernel is right on it."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from recsys.commands.output import AsJson, print_json, say, tell
from recsys.console.text import table


def doctor(
    tests: Annotated[
        bool, typer.Option("--tests/--no-tests", help="Try every kernel against its definition.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Show versions, processor, threads, FAISS, GPU and caches, and try every kernel; 1 if one is wrong.

    Kernels that were never used are compiled, which takes a minute; else it takes seconds.
    """
    from recsys.diagnosis import environment
    from recsys.diagnosis.kernel_tests import kernel_tests

    facts: dict[str, Any] = {
        "versions": environment.versions(),
        "processor": environment.processor(),
        "threads": environment.threads(),
        "faiss": environment.faiss(),
        "gpu": environment.gpu(),
        "folders": environment.folders(),
    }
    if not as_json:
        tell("\n".join(line for name, section in facts.items() for line in _section(name, section)))
    found = list(kernel_tests()) if tests else []
    wrong = [test for test in found if not test.passed]
    if as_json:
        print_json({**facts, "kernels": [asdict(test) for test in found], "passed": not wrong})
    elif found:
        tell(_tests_table(found))
    for test in wrong:
        say(f"Wrong: {test.operation} on {test.backend}: {test.message or 'differs from its definition'}")
    if wrong:
        raise typer.Exit(1)


def _section(name: str, values: dict[str, Any]) -> list[str]:
    return [name, *(f"  {key.replace('_', ' ')}: {_shown(value)}" for key, value in values.items())]


def _shown(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"path", "writable"}:
        return f"{value['path'] or 'none'} ({'can be written' if value['writable'] else 'cannot be written'})"
    if isinstance(value, dict):
        return " ".join(f"{key}={each}" for key, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no", None: "none"}.get(value, str(value)) if not value else str(value)


def _tests_table(found: list[Any]) -> str:
    rows = [
        [
            test.operation,
            test.backend,
            "right" if test.passed else "WRONG",
            "" if test.error is None else f"{test.error:.1e}",
            f"{test.seconds:.1f}",
        ]
        for test in found
    ]
    headers = ("kernel", "backend", "against its definition", "error", "seconds")
    return table(headers, rows, left=headers[:3])
