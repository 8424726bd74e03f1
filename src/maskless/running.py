"""Which stages of a study run, and the record of each that did.

A stage runs if its result is not fresh (:mod:`maskless.freshness`).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from maskless.errors import StudyError
from maskless.freshness import is_fresh, stages_before, stamped
from maskless.progress import log, set_mode
from maskless.stages import STAGE_FUNCTIONS, Options, train_for
from maskless.study import STAGES, Study, measure, versions


def run_study(
    folder: Path,
    *,
    first: str | None = None,
    last: str | None = None,
    keep_going: bool = False,
    strict: bool = False,
) -> str:
    """Bring a study up to date, from the first stage that is stale.

    Parameters
    ----------
    folder
        Of the study.
    first
        Compute this stage and those after it also if they are fresh.
    last
        Stop after this stage.
    keep_going
        Leave out images that cannot be used and record why.
    strict
        A recorded problem of an image is an error.

    Returns
    -------
    str
        What was done, in plain words.

    Raises
    ------
    MasklessError
        One line that says what is wrong, where and what to do. What was finished stays.
    """
    study = Study.open(folder)
    options = Options(keep_going, strict)
    wanted = STAGES[: STAGES.index(last) + 1] if last else STAGES
    forced = STAGES[STAGES.index(first) :] if first else ()
    done = []
    with study.lock():
        _check_devices(study, wanted, forced)
        for stage in wanted:
            if stage in forced or not is_fresh(study, stage):
                _run_stage(study, stage, replace(options, forced=stage in forced))
                done.append(stage)
    return _summary(study, done, wanted)


def run_one_stage(
    folder: Path, stage: str, *, keep_going: bool = False, strict: bool = False
) -> str:
    """Run one stage if it is stale; the stages before it must be up to date.

    Training is shared out among the processes that torchrun started. See :func:`run_study`.
    """
    study = Study.open(folder)
    options = Options(keep_going, strict)
    with ExitStack() as held:

        def must_run() -> bool:
            held.enter_context(study.lock())
            for before in stages_before(stage):
                if not is_fresh(study, before):
                    raise StudyError(
                        f"{folder}: stage {before} is not up to date, so {stage} cannot run. "
                        f"Run: maskless run {folder} --until {stage}"
                    )
            return not is_fresh(study, stage)

        if stage == "train":
            from maskless.training.ranks import joined_ranks

            ranks = held.enter_context(joined_ranks())
            todo = ranks.first_decides(must_run)
            if todo and ranks.number > 0:
                set_mode("quiet")  # process 0 shows the progress of all
                train_for(study, options, ranks.number)
                return f"process {ranks.number} has helped to train {folder}"
        else:
            todo = must_run()
        if not todo:
            return _summary(study, [], (stage,))
        _run_stage(study, stage, options)
    return _summary(study, [stage], (stage,))


def _check_devices(study: Study, wanted: tuple[str, ...], forced: tuple[str, ...]) -> None:
    """A GPU that is not there is told before the hours of work that lead to it.

    Only where one is asked for: to find out which stages are due reads files of every image.
    """

    def due(stage: str) -> bool:
        return stage in wanted and (stage in forced or not is_fresh(study, stage))

    device = study.config.device
    if device not in ("auto", "cpu") and (due("train") or due("embed")):
        from maskless.gpu import choose_device

        choose_device(device)
    if study.config.cluster.device == "cuda" and due("cluster"):
        from maskless.analysis.rapids import rapids_name

        rapids_name()


def _run_stage(study: Study, stage: str, options: Options) -> None:
    log(f"{stage} ...")
    with measure() as usage:
        facts = STAGE_FUNCTIONS[stage](study, options)
    record = {
        "stage": stage,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(usage.seconds, 2),
        "peak_mib": round(usage.peak_mib),
        "seed": study.config.seed,
        "fingerprint": stamped(study, stage),
        **facts,
        "versions": versions(),
    }
    study.add_record(record)
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
    log(f"{stage} done in {usage.seconds:.1f} s, peak {usage.peak_mib:.0f} MiB: {told}")


def _summary(study: Study, done: list[str], wanted: tuple[str, ...]) -> str:
    if not done:
        return f"{study.folder} is up to date ({', '.join(wanted)})"
    lines = [f"done: {', '.join(done)}"]
    if "report" in wanted:
        lines.append(f"the report is {study.report_file}")
    return "\n".join(lines)
