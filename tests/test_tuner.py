"""`mlq tune`: the artifact it writes, what it says meanwhile, and that no stop loses a trial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner, Result
from optuna.trial import TrialState

from mlq import artifact, judge
from mlq.cli import main
from mlq.export import to_qdq
from mlq.pages.trials import Watch, duration
from mlq.report import Report
from mlq.tuning import history
from mlq.tuning.outcomes import Outcome
from mlq.tuning.settings import Settings
from mlq.tuning.space import Configuration

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
SHA256 = "a" * 64


@pytest.fixture(autouse=True, scope="module")
def own_trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the trials that a user keeps, not that of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("trials")
    os.environ["MLQ_TRIALS"] = str(folder)
    return folder


def arguments(demo: Path, out: Path, *more: object) -> list[str]:
    data = [f"--{name}={demo / f'digits-{name}.npz'}" for name in ("calib", "eval")]
    return ["tune", str(demo / "digits.onnx"), *data, "-o", str(out), *map(str, more)]


def mlq(*given: object, code: int = 0) -> Result:
    done = CliRunner().invoke(main, [str(each) for each in given], prog_name="mlq")
    assert done.exit_code == code, done.output
    return done


def process(demo: Path, out: Path, *more: object) -> subprocess.Popen[str]:
    code = "from mlq import judge; judge._SECONDS = 0.5; from mlq.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments(demo, out, *more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(out: Path) -> list[optuna.trial.FrozenTrial]:
    """The finished trials in the folder beside an output folder; none while there is no study."""
    file = out.with_name(f"{out.name}.tuning") / "study.db"
    try:
        (summary,) = optuna.get_all_study_summaries(f"sqlite:///{file}") if file.exists() else ()
        study = optuna.load_study(study_name=summary.study_name, storage=f"sqlite:///{file}")
    except Exception:  # noqa: BLE001 - whatever a data base says that is being made
        return []
    return study.get_trials(states=FINISHED)


def wait_for_trials(out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(finished(out)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def tuned(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("tuned") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "_SECONDS", 0.5)
        return out, mlq(*arguments(demo, out, "--trials", 6, "--plain"))


def test_the_artifact_is_one_like_any_other(tuned: tuple[Path, Result], demo: Path) -> None:
    out, _ = tuned
    found = artifact.evaluate(out, demo / "digits-eval.npz")
    report = Report.from_json(out / "report.json")
    assert report.accuracy is not None
    assert found.top1 == report.accuracy.mixed
    assert artifact.bench(out, seconds=0.1).latency_ms["mixed"].runs > 0
    assert to_qdq(out, out.parent / "net.onnx").is_file()
    assert report.device_check.max_abs_diff_lsb == 0


def test_the_artifact_does_what_its_trial_did(tuned: tuple[Path, Result]) -> None:
    report = Report.from_json(tuned[0] / "report.json")
    assert report.tuning is not None
    assert len(report.tuning.trials) == 6
    (chosen,) = [each for each in report.tuning.trials if each.chosen]
    assert chosen.kl_mnat == min(each.kl_mnat for each in report.tuning.trials)
    assert report.agreement.mixed.kl_mnat == pytest.approx(chosen.kl_mnat, abs=0.2)
    assert report.calibrator == chosen.calibrator
    assert "## Tuning" in (tuned[0] / "report.md").read_text()


def test_the_report_marks_what_is_not_beaten(tuned: tuple[Path, Result]) -> None:
    tuning = Report.from_json(tuned[0] / "report.json").tuning
    assert tuning is not None
    whole = [each for each in tuning.trials if each.evaluated == 500]
    for trial in whole:
        beaten = any(
            each.kl_mnat < trial.kl_mnat and each.predicted_us <= trial.predicted_us
            for each in whole
        )
        assert trial.on_front != beaten
    assert any(trial.on_front for trial in whole if trial.chosen)


def test_two_objectives_leave_the_choice(demo: Path, tmp_path: Path) -> None:
    """The fastest near the best is the artifact; what none beats stands in folders of its own."""
    out = tmp_path / "out"
    given = ("--trials", 8, "--space", "full", "--objectives", "loss,latency", "--plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "_SECONDS", 0.2)
        patch.setenv("MLQ_TRIALS", "off")
        done = mlq(*arguments(demo, out, *given))
    tuning = Report.from_json(out / "report.json").tuning
    assert tuning is not None
    (chosen,) = [each for each in tuning.trials if each.chosen]
    whole = [each for each in tuning.trials if each.evaluated == 500]
    near = [each for each in whole if each.kl_mnat <= min(e.kl_mnat for e in whole) + 4.0]
    assert chosen.predicted_us == min(each.predicted_us for each in near)
    others = [each for each in tuning.trials if each.artifact.startswith("front/")]
    assert others
    for each in others:
        report = Report.from_json(out / each.artifact / "report.json")
        assert each.on_front
        assert report.agreement.mixed.kl_mnat == pytest.approx(each.kl_mnat, abs=0.2)
        kept = [layer.name for layer in report.layers if layer.precision != "w8a8"]
        assert bool(kept) == (each.mixed != "none")
    assert artifact.evaluate(out / "front" / "1", demo / "digits-eval.npz").top1 > 0.9
    assert max(map(len, [*done.stderr.splitlines(), *done.stdout.splitlines()])) <= 80
    assert "more of the front" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("rounding", "methods"), [("least-squares", "none"), ("nearest", "equalize+bias-correction")]
)
def test_changed_weights_are_those_of_the_trial(
    demo: Path, tmp_path: Path, rounding: str, methods: str
) -> None:
    out = tmp_path / "out"
    words = (f"rounding={rounding}", f"methods={methods}", "granularity=per_axis")
    only = [each for word in words for each in ("--only", word)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "_SECONDS", 0.2)
        patch.setenv("MLQ_TRIALS", "off")
        mlq(*arguments(demo, out, "--space", "full", "--trials", 2, *only, "--plain"))
    report = Report.from_json(out / "report.json")
    assert report.tuning is not None
    (chosen,) = [each for each in report.tuning.trials if each.chosen]
    assert (chosen.rounding, chosen.methods) == (rounding, methods)
    assert report.agreement.mixed.kl_mnat == pytest.approx(chosen.kl_mnat, abs=0.2)
    assert report.device_check.max_abs_diff_lsb == 0
    assert (out / "rounding.npz").is_file()


def test_a_space_can_be_restricted() -> None:
    points = Settings.of({"only": ("mixed=none", "scheme=symmetric,power_of_two")}).points.points()
    assert len(points) == 24
    assert {point.mixed for point in points} == {"none"}
    assert {point.scheme for point in points} == {"symmetric", "power_of_two"}


def test_each_trial_is_a_line_of_at_most_80_columns(tuned: tuple[Path, Result]) -> None:
    _, done = tuned
    lines = done.stderr.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [f"{number}/6" for number in range(1, 7)]
    assert max(map(len, [*lines, *done.stdout.splitlines()])) <= 80
    assert "6 trials in a space of 96 configurations" in " ".join(done.stdout.split())


def test_the_same_command_goes_on(tuned: tuple[Path, Result], demo: Path) -> None:
    out, _ = tuned
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "_SECONDS", 0.5)
        done = mlq(*arguments(demo, out, "--trials", 7, "--plain"))
    first, *rest = done.stderr.splitlines()
    assert first == "going on after 6 trials"
    assert len(rest) == 2
    assert len(finished(out)) == 7


def test_a_users_trials_are_kept_for_other_networks(
    tuned: tuple[Path, Result], own_trials: Path
) -> None:
    sha256 = Report.from_json(tuned[0] / "report.json").model.sha256
    (file,) = own_trials.iterdir()
    head, *rows = map(json.loads, file.read_text().splitlines())
    assert head["sha256"] == sha256
    assert len(rows) >= 6
    assert head["model"] in history.known(SHA256, loss="kl").models
    assert head["model"] not in history.known(sha256, loss="kl").models


def test_ctrl_c_writes_the_best_so_far(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = process(demo, out, "--trials", 96, "--sampler", "random", "--plain")
    wait_for_trials(out, 2)
    running.send_signal(signal.SIGINT)
    said, lines = running.communicate(timeout=120)
    assert running.returncode == 130, lines
    assert "compiling the best so far" in lines
    assert "Traceback" not in lines
    report = Report.from_json(out / "report.json")
    assert report.tuning is not None
    assert 2 <= len(report.tuning.trials) < 96
    assert "open" in said


def test_a_kill_loses_no_finished_trial(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = process(demo, out, "--trials", 96, "--sampler", "random")
    wait_for_trials(out, 3)
    running.kill()
    running.wait()
    before = finished(out)
    assert not out.exists()
    process(demo, out, "--trials", len(before) + 1, "--sampler", "random").wait(timeout=120)
    after = finished(out)
    assert [each.params for each in after[: len(before)]] == [each.params for each in before]
    assert len(after) == len(before) + 1
    assert (out / "model.vmfb").exists()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--sampler", "quantum", "did you mean 'quantune'?"),
        ("--space", "quantune69", "did you mean 'quantune96'?"),
        ("--only", "mixd=none", "did you mean 'mixed'?"),
        ("--only", "scheme=symetric", "did you mean 'symmetric'?"),
        ("--only", "samples=3", "unknown knob 'samples'"),
        ("--loss", "top1", "allowed: kl, accuracy"),
        ("--objectives", "latency", "allowed: loss, loss,latency"),
        ("--time", "soon", "write 90s, 10m or 2h"),
        ("--time", "0s", "write 90s, 10m or 2h"),
        ("--samples", "1,many", "write 1,128,512"),
        ("--samples", "1,201", "has 200 samples, and 201 were asked for"),
        ("--trials", "0", "trials: input should be greater than 0"),
        ("--study", "study.db", "cannot be opened as a study"),
        ("--eval", "no/such.npz", "no/such.npz"),
    ],
)
def test_wrong_options_name_themselves(
    demo: Path, tmp_path: Path, option: str, value: str, said: str
) -> None:
    done = mlq(*arguments(demo, tmp_path / "out", option, value), code=2)
    (line,) = done.stderr.splitlines()
    assert said.lower() in line.lower()
    assert not list(tmp_path.iterdir())


def outcome(number: int, loss: float, *, settled: bool = True, us: float = 1.0) -> Outcome:
    point = Configuration(512, "power_of_two", "percentile", "per_tensor", "quantunev2")
    return Outcome(number, point, loss, settled, 1.0 - loss / 100, loss, loss, 1.0, 100, 1.0, us)


def test_lines_tell_estimates_and_the_best() -> None:
    said: list[str] = []
    watch = Watch("kl", 96, said.append, seconds=5.0)
    watch.begin([outcome(0, 3.0)])
    watch.add(outcome(1, 2.0, settled=False))
    watch.add(outcome(2, 1.0))
    assert said[0] == "going on after 1 trial"
    assert said[2].split()[-4:-1] == ["~98.00", "2.00", "3.00"]
    assert said[3].split()[-4:-1] == ["99.00", "1.00", "1.00"]
    assert max(map(len, said)) <= 80


def test_lines_tell_what_no_trial_beats() -> None:
    said: list[str] = []
    watch = Watch("kl", 96, said.append, timed=True)
    watch.begin([outcome(0, 3.0, us=10.0)])
    for each in (outcome(1, 2.0, us=12.0), outcome(2, 2.5, us=13.0), outcome(3, 9.0, us=9.0)):
        watch.add(each)
    watch.add(outcome(4, 99.99, us=1234567.0, settled=False))
    assert [line.split()[-3] for line in said[2:]] == ["2.00*", "2.50", "9.00*", "99.99"]
    assert max(map(len, said)) <= 80


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0s"), (59.4, "59s"), (61.0, "1m01"), (3599.0, "59m59"), (5400.0, "1h30")],
)
def test_times_are_short(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
