"""Tuning: the configuration of the quantizer that suits a network, and the artifact made with it.

Trials are simulated on one compiled module; only what is chosen is compiled. They are written to a
study as they finish, so the same call goes on where an earlier one ended, whatever ended it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from mlq import calibration, compiler, planning, targets
from mlq.allocation import Allocation
from mlq.analysis import Subject, measure, simulate
from mlq.errors import DataError, UsageError
from mlq.frontends.data import Samples, load_data
from mlq.judge import Judge
from mlq.network import load
from mlq.pages import trials as shown
from mlq.progress import Stages
from mlq.recipe import Recipe
from mlq.report import TrialReport, TuningReport
from mlq.reporting import Findings
from mlq.selection import Candidate
from mlq.targets.base import Target
from mlq.tuning import history
from mlq.tuning import study as studies
from mlq.tuning.features import describe
from mlq.tuning.objective import Objective
from mlq.tuning.sampler import sampler
from mlq.tuning.settings import Settings
from mlq.tuning.space import Configuration, Space
from mlq.tuning.trials import Trials

STUDY = "study.db"


@dataclass(frozen=True)
class Tuned:
    """The artifact of the best configuration, and whether the search was stopped by hand."""

    result: compiler.Result
    interrupted: bool


def tune(
    model: str | Path,
    calib: Samples,
    eval: Samples,
    *,
    work: Path | None = None,
    preprocess: Path | None = None,
    progress: bool = False,
    plain: bool = False,
    command: str = "mlq.tuner.tune(...)",
    **options: Any,
) -> Tuned:
    """Find the configuration that loses least on `eval`, calibrated on `calib`; compile it.

    `options` are the fields of `Settings`. Without `study` trials are kept in the folder `work`,
    and without that in memory. KeyboardInterrupt ends the search, and the best so far is compiled;
    it passes through only while there is none. Raises an MlqError, one line, for what is wrong.
    """
    settings = Settings.of(options)
    device, path = targets.by_name(settings.target), Path(model)
    stages = Stages(visible=progress, plain=plain)
    with stages.stage("import"):
        specs = load(path).sample_specs
        opened = partial(
            load_data, inputs=specs, preprocess=preprocess, model_path=path, seed=settings.seed
        )
        objective = Objective(
            path,
            opened(calib),
            opened(eval),
            device,
            threads=settings.threads,
            seed=settings.seed,
        )
    search = Search(objective, device, settings, stages, work)
    return search.finish(interrupted=search.run(), command=command)


@dataclass(frozen=True)
class Search:
    """One network, its samples, and a study of its configurations."""

    objective: Objective
    target: Target
    settings: Settings
    stages: Stages
    work: Path | None

    @cached_property
    def space(self) -> Space:
        """The configurations to choose from."""
        available, counts = self.objective.calib.samples, self.settings.counts
        if counts is None:
            return self.settings.points.fitted(available)
        if max(counts) > available:
            raise DataError(
                f"{self.objective.calib.name}: has {available} samples, and {max(counts)} were"
                " asked for; list fewer calibration samples or give more data"
            )
        return replace(self.settings.points, samples=counts)

    @cached_property
    def subject(self) -> str:
        """A hash of all that a trial depends on: trials of one subject can be compared."""
        parts = [
            self.objective.network.model.sha256,
            self.objective.calib.sha256,
            self.objective.data.sha256,
            self.target.name,
            self.settings.seed,
            self.settings.loss,
            self.space.choices,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @cached_property
    def name(self) -> str:
        """What the network is called."""
        return self.objective.network.model.path.stem

    @cached_property
    def features(self) -> Mapping[str, float]:
        """What a surrogate is told of the network."""
        with self.stages.stage("calibrate"):
            observed = self.objective.observations(self.objective.calib.samples)
        return describe(self.objective.single, observed)

    @cached_property
    def prior(self) -> Trials:
        """The trials of other networks, where the sampler makes use of them."""
        if not self.settings.transfers:
            return Trials()
        return history.known(self.objective.network.model.sha256, loss=self.settings.loss)

    @cached_property
    def study(self) -> studies.Study:
        """The study, opened or made."""
        settings = self.settings
        chooser = sampler(
            settings.sampler,
            self.space,
            prior=self.prior,
            features=self.features if settings.transfers else {},
            seed=settings.seed,
        )
        with studies.quiet():
            return studies.open_study(self._storage(), f"{self.name} {self.subject[:12]}", chooser)

    def _storage(self) -> str | None:
        """Where the trials are: an SQLAlchemy address, or None for memory."""
        if self.settings.study is not None or self.work is None:
            return self.settings.study
        if self.work.exists() and not self.work.is_dir():
            raise UsageError(
                f"{self.work}: is a file; move it away, trials are kept in that folder"
            )
        self.work.mkdir(parents=True, exist_ok=True)
        return studies.address(self.work / STUDY)

    def run(self) -> bool:
        """Add trials; True if that was stopped by hand after one was measured."""
        settings, study = self.settings, self.study
        goal = min(settings.trials, len(self.space.points()))
        with self.stages.stage("compile simulation"):
            self.objective.float_hits  # noqa: B018 - made here, so that no trial waits for it
        watch = shown.Watch(settings.loss, goal, self.stages.say, seconds=settings.seconds)
        watch.begin(studies.outcomes(study))
        try:
            with self.stages.stage("tune"), studies.quiet():
                studies.run(
                    study,
                    self.objective,
                    self.space,
                    trials=goal,
                    loss=settings.loss,
                    seconds=settings.seconds,
                    subject=self.subject,
                    advance=lambda trial: watch.add(studies.outcome(trial)),
                )
        except KeyboardInterrupt:
            if studies.best(study) is None:
                raise
            self.stages.say("stopped; compiling the best so far (Ctrl-C again to give it up)")
            return True
        return False

    def finish(self, *, interrupted: bool, command: str) -> Tuned:
        """Compile the best configuration, check it, and keep the trials for other networks."""
        best = studies.best(self.study)
        if best is None:
            raise UsageError(
                f"no trial was finished within {self.settings.seconds:g} s; allow more with --time"
            )
        findings = self._findings(best.configuration, command)
        history.keep(
            history.Subject(self.name, self.objective.network.model.sha256, self.subject),
            float(self.objective.float_hits.mean()),
            self.features,
            studies.outcomes(self.study),
        )
        report = self._report(best.configuration)
        return Tuned(compiler.result(replace(findings, tuning=report)), interrupted)

    def _findings(self, configuration: Configuration, command: str) -> Findings:
        """The artifact of a configuration, with the ranges that its trial was measured with."""
        objective, threads = self.objective, self.settings.threads
        recipe = Recipe(
            target=self.target.name,
            max_drop=None,
            calibrator=configuration.calibrator,
            scheme=configuration.scheme,
            granularity=configuration.granularity,
            samples=configuration.samples,
            seed=self.settings.seed,
            threads=threads,
        )
        data = objective.calib.first(configuration.samples)
        subject = Subject(objective.single, data, 1, self.target, recipe, self.stages)
        choice = calibration.Choice(objective.ranges(configuration), {}, 0)
        observed = objective.observations(configuration.samples)
        found = measure(subject, observed, simulate(subject), choice)
        planner = planning.Planner.of(objective.single, self.target, recipe, found.sensitivities)
        precisions, reasons = objective.decisions(configuration)
        totals = planner.problem.totals(precisions)
        chosen = Candidate(Allocation(precisions, reasons, *totals))
        judge = Judge(objective.single, objective.data, self.stages, batch=1, threads=threads)
        return compiler.decide(planner, [chosen], found, judge, command)

    def _report(self, best: Configuration) -> TuningReport:
        rows = [
            TrialReport(
                **each.configuration.knobs,
                number=each.number + 1,
                accuracy=each.accuracy,
                lost_points=each.lost_points,
                kl_mnat=each.kl_mnat,
                evaluated=each.samples,
                seconds=each.seconds,
                chosen=each.whole and each.configuration == best,
            )
            for each in studies.outcomes(self.study)
        ]
        return TuningReport(
            sampler=self.settings.sampler,
            space=self.settings.space,
            points=len(self.space.points()),
            loss=self.settings.loss,
            prior=self.prior.models,
            trials=tuple(rows),
        )
