"""The campaign of faults: its page is that of its records, and what fails is told and kept."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))  # where `python -m pytest` starts, but not `pytest`

from formats.hostile import campaign as hostile

from campaign import __main__ as runner
from campaign import fuzzed, record, report
from campaign.part import Part, Trials, not_run
from campaign.record import Record
from campaign.targets import readers


def test_the_page_is_that_of_the_records():
    assert report.PAGE.read_text() == report.page(record.read(report.RECORDS))


def test_every_part_is_recorded():
    assert {found.part for found in record.read(report.RECORDS)} == {*runner.PARTS}


def test_every_kind_of_file_is_fuzzed():
    kinds = {kind for target in readers.TARGETS.values() for kind in target.kinds}
    assert {name for name, kind in hostile.KINDS.items() if kind.hostile or kind.real} <= kinds


def test_a_record_comes_back_from_its_file_and_replaces_the_one_before(tmp_path):
    first, second = (
        Record("a", "x", "failed", note="it"),
        Record("a", "y", "passed", 3, "files", 1.5, {"n": 2}),
    )
    record.write(tmp_path / "r", [first, second])
    record.write(tmp_path / "r", [first._replace(result="passed")])
    assert record.read(tmp_path / "r") == [first._replace(result="passed"), second]


def failing(given):
    trials = Trials("a subject", "trials", 10, given.kept)
    while trials.going:
        trials.count += 1
        if trials.count == 2:
            trials.fail("it broke", "evidence")
    yield trials.record()


def breaking(given):
    yield not_run("one", "needs a tool")
    raise RuntimeError("the part broke off")


@pytest.mark.parametrize(
    ("part", "failures", "results"),
    [(failing, 1, ["failed"]), (breaking, 1, ["not run", "failed"]), (lambda given: iter(()), 0, [])],
)
def test_what_fails_is_recorded_kept_and_told(part, failures, results, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "BUILD", tmp_path)
    monkeypatch.setattr(runner, "PARTS", {"part": Part(part, 1, "")})
    records = tmp_path / "records"
    assert runner.main(["--minutes", "0.01", "--records", str(records)]) == failures
    assert [found.result for found in record.read(records)] == results
    kept = [path.read_text() for path in (tmp_path / "failed").iterdir()]
    assert kept == (["it broke\nevidence"] if part is failing else [])


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        runner.main(["nothing"])
    assert "PART must be one of readers" in capsys.readouterr().err


def test_the_log_of_the_fuzzer_is_read(tmp_path):
    trials = Trials("a", "inputs", 1, tmp_path)
    fuzzed.read_log(
        "#12 NEW cov: 7 ft: 9\n#99\tDONE   cov: 8 ft: 9\nstat::number_of_executed_units: 101\n", trials
    )
    assert (trials.count, trials.figures) == (101, {"places reached": 8})
