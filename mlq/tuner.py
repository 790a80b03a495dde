"""Tuning: the configuration of the quantizer that suits a network, and the artifact made with it.

Trials are simulated on one compiled module; only what is chosen is compiled. They are written to a
study as they finish, so the same call goes on where an earlier one ended, whatever ended it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from mlq import calibration, compiler, planning, targets
from mlq.allocation import Allocation
from mlq.analysis import Subject, measure, simulate
from mlq.errors import DataError, UsageError
from mlq.frontends.data import Samples
from mlq.judge import Judge
from mlq.pages.trials import Watch
from mlq.progress import Stages
from mlq.reporting import Findings
from mlq.selection import Candidate
from mlq.tuning import cluster, history, mixing, outcomes, summary
from mlq.tuning import study as studies
from mlq.tuning.cluster import Task
from mlq.tuning.features import describe
from mlq.tuning.objective import Objective
from mlq.tuning.sampler import QuantuneSampler, sampler
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
    stages = Stages(visible=progress, plain=plain)
    task = Task(
        model=Path(model),
        calib=calib,
        eval=eval,
        target=settings.target,
        preprocess=preprocess,
        seed=settings.seed,
        sizes=settings.sizes,
        outputs=settings.outputs,
        tolerance=settings.tolerance_mnat,
    )
    with stages.stage("import"):
        objective = task.objective()
    search = Search(objective, settings, stages, work)
    with search.measuring(task) as (measuring, jobs):
        interrupted = search.run(measuring, jobs)
    search.keep()
    return Tuned(search.artifact(command), interrupted)


@dataclass(frozen=True)
class Search:
    """One network, its samples, and a study of its configurations."""

    objective: Objective
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
            self.settings.target,
            self.settings.seed,
            self.settings.loss,
            self.settings.objectives,
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
        return describe(self.objective.network, observed)

    @cached_property
    def prior(self) -> Trials:
        """The trials of other networks, where the sampler makes use of them."""
        if not self.settings.transfers:
            return Trials()
        return history.known(self.objective.network.model.sha256, loss=self.settings.loss)

    @cached_property
    def study(self) -> studies.Study:
        """The study, opened or made."""
        settings, known = self.settings, dict[str, float]()
        chooser = sampler(
            settings.sampler,
            self.space,
            prior=self.prior,
            features=known,
            known_us=self.objective.mixing.known_us if settings.timed else None,
            forecasts=self.objective.forecasts.of if settings.transfers else None,
            seed=settings.seed,
        )
        if isinstance(chooser, QuantuneSampler) and settings.transfers:
            with self.stages.stage("compile simulation"):
                self.objective.compile_beside(chooser.surrogate.grow)
            known.update(self.features)  # which trees of other networks' trials need not know
        name, objectives = f"{self.name} {self.subject[:12]}", 1 + settings.timed
        with studies.quiet():
            return studies.open_study(self._storage(), name, chooser, objectives=objectives)

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

    @contextmanager
    def measuring(self, task: Task) -> Iterator[tuple[studies.Measuring, int]]:
        """What measures the trials, and how many at once."""
        address, workers = self.settings.scheduler, self.settings.workers
        if address is None and workers is None:
            yield self.objective, 1
            return
        with cluster.opened(
            task, self.subject, address=address, workers=workers or 1, say=self.stages.say
        ) as found:
            yield found

    def run(self, measuring: studies.Measuring, jobs: int) -> bool:
        """Add trials; whether that was stopped by hand.

        KeyboardInterrupt passes through as long as there is no trial to choose.
        """
        settings, study, points = self.settings, self.study, self.space.points()
        goal = min(settings.trials, len(points))
        with self.stages.stage("forecast"):
            self.objective.foresee(points if settings.transfers else (), measuring.prepare)
        watch = Watch(
            settings.loss, goal, self.stages.say, seconds=settings.seconds, timed=settings.timed
        )
        watch.begin(outcomes.outcomes(study))
        try:
            with self.stages.stage("tune"), studies.quiet():
                studies.run(
                    study,
                    measuring,
                    self.space,
                    trials=goal,
                    loss=settings.loss,
                    seconds=settings.seconds,
                    subject=self.subject,
                    jobs=jobs,
                    advance=lambda trial: watch.add(outcomes.outcome(trial)),
                )
        except KeyboardInterrupt:
            if self._best is None:
                raise
            self.stages.say("stopped; compiling the best so far (Ctrl-C again to give it up)")
            return True
        return False

    def keep(self) -> None:
        """Keep the trials for the networks that are tuned next."""
        history.keep(
            history.Subject(self.name, self.objective.network.model.sha256, self.subject),
            self.features,
            outcomes.outcomes(self.study),
            self.objective.forecasts.of,
        )

    def artifact(self, command: str) -> compiler.Result:
        """Compile the best configuration, and check it; with two objectives the front's others too.

        Each of those is a folder in the output folder.
        """
        found = outcomes.outcomes(self.study)
        best = self._best
        if best is None:
            raise UsageError("no trial was finished in that time; allow more with --time")
        folders = summary.worthwhile(found, best) if self.settings.timed else {best: "."}
        made = {folder: self._result(each, folders, command) for each, folder in folders.items()}
        files = {
            str(PurePosixPath(folder, name)): content
            for folder, result in made.items()
            for name, content in result.files.items()
        }
        return replace(made["."], files=files)

    @property
    def _best(self) -> outcomes.Outcome | None:
        settings = self.settings
        return outcomes.best(outcomes.outcomes(self.study), settings.loss, timed=settings.timed)

    def _result(
        self, shown: outcomes.Outcome, folders: Mapping[outcomes.Outcome, str], command: str
    ) -> compiler.Result:
        """The artifact of a trial, with a report on all of them."""
        report = summary.report(
            outcomes.outcomes(self.study),
            folders,
            self.settings,
            points=len(self.space.points()),
            prior=self.prior.models,
            shown=shown,
        )
        return compiler.result(replace(self._findings(shown.configuration, command), tuning=report))

    def _findings(self, configuration: Configuration, command: str) -> Findings:
        """The artifact of a configuration, with the ranges that its trial was measured with."""
        objective, threads = self.objective, self.settings.threads
        target = targets.by_name(self.settings.target)
        given = {
            "calibrator": configuration.calibrator,
            "rounding": configuration.rounding,
            "methods": configuration.methods.replace("+", ","),
            "costs": "table",  # what trials were compared by
            "samples": configuration.samples,
            "seed": self.settings.seed,
            "threads": threads,
            "sizes": self.settings.sizes,
            "outputs": self.settings.outputs,
        }
        recipe = mixing.recipe(configuration, target).model_copy(update=given)
        data = objective.calib.first(configuration.samples)
        equalized = objective.network_of(configuration.equalized)
        subject = Subject(equalized, data, 1, target, recipe, self.stages)
        choice = calibration.Choice(objective.ranges(configuration), {}, 0)
        observed = objective.observations(configuration.samples, configuration.equalized)
        simulation = objective.simulated(configuration, simulate(subject))
        rounding = objective.rounding(configuration)
        found = replace(measure(subject, observed, simulation, choice), rounding=rounding)
        network = rounding.of(objective.network)
        planner = planning.Planner.of(network, target, recipe, found.sensitivities)
        precisions, reasons, _ = objective.decision(configuration)
        totals = planner.problem.totals(precisions)
        chosen = Candidate(Allocation(precisions, reasons, *totals))
        judge = Judge(network, objective.data, self.stages, batch=1, threads=threads)
        forms = compiler.Forms(network, network)
        return compiler.decide(planner, [chosen], found, judge, command, forms=forms)
