import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("triton")

from recsys.commands.app import main
from recsys.kernels.shared.launching.checking import check_table, triton_version
from recsys.kernels.shared.launching.compile_pool import compile_all, recorded, spread
from recsys.kernels.shared.launching.machine_code import ARCHITECTURES, SHARED_LIMITS
from recsys.kernels.shared.launching.operations import operations, record_operation
from recsys.kernels.shared.launching.recording import Launch
from recsys.kernels.shared.launching.sources import source_digest
from recsys.kernels.shared.launching.table import Key, Row, differences, faults, read_table, write_table

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "benchmarks" / "results" / "compiled-kernels.json"
KERNELS = Path(__file__).with_name("oversized_kernels.py")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return read_table(COMMITTED.read_text())[1]


@pytest.fixture(scope="module")
def conv(rows: list[Row]) -> list[Row]:
    """Rows of one operation, with which tables are spoiled."""
    return [row for row in rows if row.key.operation == "conv"]


@pytest.fixture(scope="module")
def launches() -> dict[Key, Launch]:
    return {key: launch for key, launch in recorded().items() if key.operation == "conv"}


def test_the_committed_table_describes_the_kernels_of_today(rows: list[Row]) -> None:
    assert differences(rows, recorded()) == []


def test_no_committed_row_spills_or_outgrows_its_chip(rows: list[Row]) -> None:
    assert faults(rows) == []


def test_the_committed_table_is_in_its_fixed_order_one_row_a_line(rows: list[Row]) -> None:
    version, _ = read_table(COMMITTED.read_text())
    assert write_table(version, reversed(rows)) == COMMITTED.read_text()
    assert len(COMMITTED.read_text().splitlines()) == len(rows) + 5


def test_every_operation_with_compile_cases_is_in_it_for_every_chip(rows: list[Row]) -> None:
    assert "conv" in operations()
    assert {(row.key.operation, row.key.chip) for row in rows} == {
        (operation, chip) for operation in operations() for chip in ARCHITECTURES
    }


def test_sound_rows_are_found_sound(conv: list[Row], launches: dict[Key, Launch]) -> None:
    assert differences(conv, launches) == []


@pytest.mark.parametrize("field", ["registers", "spills", "shared"])
def test_a_changed_figure_is_found(conv: list[Row], launches: dict[Key, Launch], field: str) -> None:
    changed = [replace(conv[0], **{field: getattr(conv[0], field) - 1}), *conv[1:]]
    assert differences(changed, launches) == [
        f"{conv[0].key.name}: the kernel's source or the row is not what was compiled"
    ]


def test_missing_extra_and_repeated_rows_are_found(conv: list[Row], launches: dict[Key, Launch]) -> None:
    extra = replace(conv[0], key=replace(conv[0].key, kernel="gone_kernel"))
    found = differences([extra, *conv[1:], conv[1]], launches)
    assert sorted(found) == sorted(
        [
            f"{conv[0].key.name}: is not in the table",
            f"{conv[1].key.name}: is in the table twice",
            f"{extra.key.name}: is in the table and is launched no more",
        ]
    )


def test_a_spill_and_too_much_shared_memory_are_faults(rows: list[Row]) -> None:
    row = rows[0]
    limit = SHARED_LIMITS[row.key.chip]
    assert faults([replace(row, shared=limit)]) == []
    assert faults([replace(row, spills=8), replace(row, shared=limit + 1)]) == [
        f"{row.key.name}: spills 8 bytes per thread to slow memory",
        f"{row.key.name}: takes {limit + 1} bytes of shared memory, {limit} is the limit",
    ]


def test_kernels_that_spill_and_outgrow_a_chip_are_found_by_compiling_them() -> None:
    found = json.loads(_run([str(KERNELS), "sm_90"]).stdout)
    assert any("spilling_kernel on sm_90" in fault and "spills" in fault for fault in found)
    assert any("oversized_kernel on sm_90" in fault and "of shared memory" in fault for fault in found)


def test_a_table_of_another_compiler_is_out_of_date(rows: list[Row]) -> None:
    outcome = check_table(write_table("0.0", rows), processes=1, progress=lambda *_: None)
    assert f"the table was made with Triton 0.0, this is {triton_version()}" in outcome.problems
    assert outcome.compiled == 0


def test_what_is_compiled_in_a_check_covers_every_kernel_and_chip(rows: list[Row]) -> None:
    chosen = spread([row.key for row in rows])
    assert len(chosen) == len({(row.key.operation, row.key.kernel) for row in rows})
    assert {key.chip for key in chosen} == set(ARCHITECTURES)


def test_nothing_is_compiled_where_kernels_are_the_interpreters(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET is set"):
        next(compile_all([rows[0].key], 1))


def test_a_compiler_that_ends_its_process_costs_one_row(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Workers look up the kernels anew: a key of no operation that they know fails in words, and a process
    # that dies is replaced.
    from recsys.kernels.shared.launching import compile_pool

    started, keys = [], [replace(rows[0].key, kernel=f"gone_{i}") for i in range(3)]

    class Mortal(compile_pool._Worker[Any, Any]):
        def __init__(self, work: Any, key: Any) -> None:
            super().__init__(work, key)
            started.append(key.kernel)
            if key.kernel == "gone_0":
                self._process.kill()

    monkeypatch.setattr(compile_pool, "_Worker", Mortal)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    results = dict(compile_all(keys, 1))
    assert results[keys[0]] == "the compiler ended its process (-9)"
    assert results[keys[1]] == results[keys[2]] == "no compile case launches it"
    assert started == ["gone_0", "gone_1"]


def test_a_configuration_that_no_case_launches_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.kernels.conv import compile_cases

    monkeypatch.setattr(compile_cases, "record_all", lambda: None)
    record_operation.cache_clear()
    with pytest.raises(
        LookupError, match=r"kernels/conv/configs.json: no compile case launches the row of sm_80"
    ):
        record_operation("conv", "sm_80")
    monkeypatch.undo()
    record_operation.cache_clear()


def _module(source: str, folder: Path, name: str) -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("kernels_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_digest_covers_callees_and_constants_but_no_comments(tmp_path: Path) -> None:
    source = KERNELS.read_text()
    variants = {
        "as_it_is": source,
        "moved": source.replace("SHIFT = ", "\n\n\nSHIFT = "),
        "described": source.replace("Keep SIZE * SIZE", "# x\n    Keep"),
        "constant": source.replace("constexpr(3)", "constexpr(4)"),
        "callee": source.replace("return x + SHIFT", "return x - SHIFT"),
        "kernel": source.replace("value = tl.load(x + at)", "value = tl.load(x + at + 1)"),
    }
    digests = {
        name: source_digest(_module(text, tmp_path, name).spilling_kernel) for name, text in variants.items()
    }
    assert digests["as_it_is"] == digests["moved"] == digests["described"]
    assert len({digests[name] for name in ("as_it_is", "constant", "callee", "kernel")}) == 4


@pytest.mark.slow
def test_the_command_checks_a_table_in_words(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version, _ = read_table(COMMITTED.read_text())
    path = tmp_path / "table.json"
    spoiled, missing, *rest = rows
    path.write_text(write_table("0.0", [replace(spoiled, spills=8), *rest]))
    bench = ["bench", "kernels", "--compile-only"]
    command = ["-c", "from recsys.commands.app import main; main()", *bench]
    failed = _run([*command, "--check", str(path), "--json"], code=1)
    assert f"{spoiled.key.name}: spills 8 bytes per thread to slow memory" in failed.stderr
    assert f"{missing.key.name}: is not in the table" in failed.stderr
    assert f"the table was made with Triton 0.0, this is {triton_version()}" in failed.stderr
    problems = json.loads(failed.stdout)["problems"]
    assert len(problems) >= 4
    assert f"{path}: {len(problems)} problems; if intended, make it anew with: recsys bench" in failed.stderr

    # What compiles nothing is called here, where the launches are recorded already.
    monkeypatch.setattr("recsys.kernels.shared.launching.interpreting", lambda: False)

    def call(*options: str) -> tuple[object, str, str]:
        monkeypatch.setattr("sys.argv", ["recsys", *bench, *options])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code, *capsys.readouterr())

    if version == triton_version():
        # Unchanged rows are kept: nothing is compiled again.
        path.write_text(COMMITTED.read_text())
        code, out, _ = call("--write", str(path), "--json")
        assert code == 0
        assert json.loads(out)["compiled"] == 0
        assert path.read_text() == COMMITTED.read_text()
    path.write_text("[]")
    code, _, err = call("--check", str(path))
    assert code == 2
    assert "not a table of compiled kernels" in err


def _run(arguments: list[str], code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run Python where kernels are compiled, not interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done
