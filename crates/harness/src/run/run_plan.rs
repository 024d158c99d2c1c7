//! Runs a plan: the missing stages in order, in this process or in workers, then the records and the tables.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use thinet_files::write_atomically;
use thinet_report::records::{Environment, Status, StudyRecord};
use thinet_report::tables::{self, ENVIRONMENT, StageSeconds, Table};

use super::options::RunOptions;
use super::queue::{Queue, Task, Turn};
use super::stage_runner::{StageRunner, environment};
use super::workers::{Inputs, Slot, StageEnd};
use crate::error::HarnessError;
use crate::events::{Event, EventLog, Reporter};
use crate::stages::program::check_programs;
use crate::stop::Stop;
use crate::store::{Claim, ClaimTiming, Depth, ManifestEntry, StageId, StageKind, Store, paths, run_folder};
use crate::study::{Plan, Spec, check, gather, manifest, unfit};

/// Result of a run.
#[derive(Debug)]
pub struct Outcome {
    pub study: StudyRecord,
    /// The tables built from it.
    pub tables: Vec<Table>,
    /// The files of each table that was written.
    pub written: Vec<tables::TableFiles>,
    /// Number of stages that ran; the others were stored before.
    pub stages_run: usize,
    /// The failure; its stages are marked "not run" in the tables.
    pub failure: Option<HarnessError>,
}

/// Runs the missing stages and writes the tables.
///
/// # Errors
/// If the results folder cannot be written, the study is running already, the run is asked to stop, or no cell succeeds. A stage that
/// fails affects only the stages that need it, see [`Outcome::failure`].
pub fn run(plan: &Plan, options: &RunOptions, reporter: &dyn Reporter) -> Result<Outcome, HarnessError> {
    let folder = plan.run_folder();
    writable(&plan.results)?;
    check_tables(&plan.spec, &plan.path, &plan.results)?;
    check_programs(plan, options.allow_commands, &options.stop)?;
    fs::create_dir_all(&folder).map_err(HarnessError::io("create", &folder))?;
    let claim = Claim::try_take(
        &folder.join(paths::CLAIM),
        &folder,
        ClaimTiming::expiring_after(options.claim_expiry),
    )?;
    remove_abandoned(plan)?;
    start_folder(plan)?;
    let log = EventLog::open(&folder.join(paths::LOG), reporter)?;
    let (stages_run, failure) = run_stages(plan, options, &claim, &log)?;
    // If another process took the run over while this one was frozen, that one writes the tables.
    claim.check()?;

    // The environment is that of the process that did the work; a run without work keeps the old one.
    if stages_run > 0 {
        let jobs = options.workers.len().max(1);
        run_folder::write_environment(&folder, &environment_of(plan, jobs))?;
    }
    let study = gather(plan)?;
    match failure {
        // Without a single cell or an unfit dense net there is nothing to tabulate.
        Some(failure)
            if study.cells.iter().all(|cell| cell.status == Status::NotRun)
                && study.dense.iter().all(|dense| dense.unfit.is_none()) =>
        {
            Err(failure)
        }
        _ => Ok(Outcome { stages_run, failure, ..write_tables(plan, study)? }),
    }
}

/// Removes the unfinished files that killed runs left beside those that this run writes; in the folder of a stage they are removed at
/// its end.
fn remove_abandoned(plan: &Plan) -> Result<(), HarnessError> {
    let results = &plan.results;
    // Tables are written in a moment, calibration images in minutes, and other runs write both.
    let hour = Duration::from_secs(3600);
    for (folder, unchanged_for) in [
        (plan.run_folder(), Duration::ZERO),
        (paths::tables(results), Duration::ZERO),
        (paths::crops(results), hour),
    ] {
        if folder.is_dir() {
            thinet_files::remove_abandoned(&folder, unchanged_for)?;
        }
    }
    Ok(())
}

/// The environment of a run with so many jobs.
fn environment_of(plan: &Plan, jobs: usize) -> Environment {
    Environment { jobs: Some(jobs), host: None, ..environment(plan) }
}

/// The environment in which a stored stage ran: that of its record, as the tables can be written on another machine than the stages.
/// `None` if nothing is stored, or only by versions whose records have no environment. It says nothing of the number of jobs.
fn stored_environment(plan: &Plan) -> Result<Option<Environment>, HarnessError> {
    let store = Store::at(&plan.results);
    let dense = plan.dense.iter().map(|dense| &dense.id);
    for id in plan.cells.iter().map(|cell| &cell.id).chain(dense) {
        // What is damaged counts as absent, as in the tables.
        let result = store.intact(id, Depth::Sizes, &mut |_| ())?;
        if let Some(environment) = result.and_then(|result| result.environment) {
            return Ok(Some(Environment { jobs: None, host: None, ..environment }));
        }
    }
    Ok(None)
}

/// Writes the rows and the tables of a study. A run that never ended has no environment, and one that is damaged is of no use: that of a
/// stored stage takes its place.
///
/// # Errors
/// If the tables belong to another study, one cannot be built, or a file cannot be written.
pub fn write_tables(plan: &Plan, study: StudyRecord) -> Result<Outcome, HarnessError> {
    check_tables(&plan.spec, &plan.path, &plan.results)?;
    start_folder(plan)?;
    let folder = plan.run_folder();
    match run_folder::run_environment(&folder) {
        Ok(Some(_)) => {}
        Ok(None) | Err(HarnessError::DamagedFile { .. }) => {
            let environment = stored_environment(plan)?.unwrap_or_else(|| environment_of(plan, 1));
            run_folder::write_environment(&folder, &environment)?;
        }
        Err(error) => return Err(error),
    }
    let rows = tables::parquet_bytes(&tables::rows_frame(&study)?)?;
    write_atomically(&folder.join(paths::ROWS), &rows)?;
    let mut outcome = unwritten_tables(study)?;
    if let Some(main) = outcome.tables.first_mut() {
        let path = folder.join(ENVIRONMENT);
        let environment = fs::read_to_string(&path).map_err(HarnessError::io("read", &path))?;
        let attachment = |suffix, text| tables::Attachment { suffix, text };
        main.attachments.push(attachment(paths::SPEC, plan.spec.to_toml()?));
        main.attachments.push(attachment(ENVIRONMENT, environment));
        main.attachments.push(tables::seconds(&stage_seconds(plan))?);
    }
    for table in &outcome.tables {
        outcome.written.push(tables::write(&paths::tables(&plan.results), table, &plan.run)?);
    }
    Ok(outcome)
}

/// Checks that the spec's tables would not replace those of another study.
///
/// # Errors
/// If they would; the message names both studies and the key to change. If a table's file cannot be read.
pub fn check_tables(spec: &Spec, path: &Path, results: &Path) -> Result<(), HarnessError> {
    let folder = paths::tables(results);
    for suffix in [""].iter().chain(&tables::BESIDE) {
        let table = format!("{}{suffix}", spec.table_name());
        let owners = tables::owners(&folder, &table)?;
        if let Some(other) = owners.iter().find(|owner| **owner != spec.name) {
            let (file, own) = (folder.join(format!("{table}.csv")), &spec.name);
            let problem = format!(
                "{} belongs to the study {other:?}, and this one is {own:?}; set its key `table` to another name, or \
                 move the files of the other study away",
                file.display()
            );
            return Err(check::value(path, "table", &problem));
        }
    }
    Ok(())
}

/// The tables of a study, for printing; writes nothing.
///
/// # Errors
/// If a table cannot be built.
pub fn unwritten_tables(study: StudyRecord) -> Result<Outcome, HarnessError> {
    let tables = tables::selectors(&study)?;
    Ok(Outcome { study, tables, written: Vec::new(), stages_run: 0, failure: None })
}

/// The wall time of each stored stage.
fn stage_seconds(plan: &Plan) -> Vec<StageSeconds> {
    let store = Store::at(&plan.results);
    let of_stage = |stage: ManifestEntry| {
        // An unreadable record is reported where its results are needed.
        let result = store.find(&stage.id).ok().flatten()?;
        let environment = result.environment;
        let (device, processor) = environment.map(|e| (e.device, e.cpu)).unzip();
        let (stage, label, seconds) = (stage.id, stage.label, result.seconds);
        Some(StageSeconds { stage, label, seconds, device, processor: processor.flatten() })
    };
    manifest(plan).stages.into_iter().filter_map(of_stage).collect()
}

/// Writes the files that a run has from its start: the spec with every default filled in, and the manifest.
pub(crate) fn start_folder(plan: &Plan) -> Result<(), HarnessError> {
    let folder = plan.run_folder();
    fs::create_dir_all(&folder).map_err(HarnessError::io("create", &folder))?;
    run_folder::write_spec(&folder, &plan.spec.to_toml()?)?;
    manifest(plan).write(&folder)
}

/// Runs the missing stages; returns how many were finished, and the failure.
fn run_stages(
    plan: &Plan,
    options: &RunOptions,
    claim: &Claim,
    reporter: &dyn Reporter,
) -> Result<(usize, Option<HarnessError>), HarnessError> {
    let tasks = tasks(plan, options, reporter)?;
    if tasks.is_empty() {
        return Ok((0, None));
    }
    reporter.event(&Event::RunStarted { stages: tasks.len() });
    let queue = Queue::new(tasks).failing_fast(options.fail_fast);
    if options.workers.is_empty() {
        let runner = StageRunner::new(plan, options)?;
        while !claim.is_lost()
            && let Some(task) = queue.next(&options.stop)
        {
            let result = runner.run_stage(&task.id, reporter);
            note_end(task, result, reporter);
        }
    } else {
        run_in_workers(&Store::at(&plan.results), &queue, options, claim, reporter);
    }
    options.stop.check()?;
    claim.check()?;
    let (done, failure) = queue.outcome();
    Ok((done, failure))
}

fn run_in_workers(
    store: &Store,
    queue: &Queue,
    options: &RunOptions,
    claim: &Claim,
    reporter: &dyn Reporter,
) {
    let (inputs, all_ended) = (Inputs::default(), Stop::default());
    std::thread::scope(|scope| {
        let mut slots = Vec::new();
        for command in &options.workers {
            let inputs = &inputs;
            slots.push(scope.spawn(move || {
                let mut slot = Slot::new(command, inputs);
                while !claim.is_lost()
                    && let Some(task) = queue.next(&options.stop)
                {
                    let failed = |problem: String| {
                        // A worker that dies cannot store its failure itself.
                        store.note_failure(&task.id, &task.label, &problem);
                        HarnessError::Worker { stage: task.id.clone(), problem }
                    };
                    let result = slot.run(&task.id, &task.label, reporter).map_err(|ended| match ended {
                        StageEnd::Stopped => HarnessError::Stopped,
                        _ if options.stop.is_set() => HarnessError::Stopped,
                        StageEnd::Died(how) => failed(how),
                        StageEnd::Failed(why) => {
                            HarnessError::Worker { stage: task.id.clone(), problem: why }
                        }
                    });
                    note_end(task, result, reporter);
                }
            }));
        }
        scope.spawn(|| {
            while !all_ended.is_set() {
                if options.stop.is_set() || queue.is_halted() {
                    inputs.stop_all();
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        for slot in slots {
            if let Err(panic) = slot.join() {
                all_ended.set();
                std::panic::resume_unwind(panic);
            }
        }
        all_ended.set();
    });
}

fn note_end(task: Turn<'_>, result: Result<(), HarnessError>, reporter: &dyn Reporter) {
    match &result {
        Ok(()) | Err(HarnessError::Stopped) => {}
        Err(error) => {
            reporter.event(&Event::StageFailed {
                id: task.id.clone(),
                label: task.label.clone(),
                error: error.to_string(),
            });
        }
    }
    task.end(result);
}

/// The stages that are not stored, in the order of the manifest: each after those that it needs.
fn tasks(plan: &Plan, options: &RunOptions, reporter: &dyn Reporter) -> Result<Vec<Task>, HarnessError> {
    let store = Store::at(&plan.results);
    let (cells, before): (Vec<_>, Vec<_>) =
        manifest(plan).stages.into_iter().partition(|stage| stage.kind == StageKind::Cell);
    let depth = if options.check { Depth::Checksums } else { Depth::Sizes };
    let cells = missing(&store, cells, depth, reporter)?;
    // Checksums of gigabytes of dense nets are compared only if a cell will read them.
    let depth = if cells.is_empty() { depth } else { Depth::Checksums };
    let before = missing(&store, before, depth, reporter)?;
    // An unfit dense net is stored but fails, and with it the stages that need it.
    let unfit = unfit::stored(plan, &store)?
        .into_iter()
        .map(|dense| (dense.id.to_string(), dense.label(), Vec::new()));
    let missing = before.into_iter().chain(cells).map(|stage| (stage.id, stage.label, stage.needs));
    let mut positions: BTreeMap<String, usize> = BTreeMap::new();
    let mut tasks = Vec::new();
    for (id, label, needs) in unfit.chain(missing) {
        // A needed stage without a task is stored and fit.
        let needs = needs.iter().filter_map(|needed| positions.get(needed).copied()).collect();
        positions.insert(id.clone(), tasks.len());
        tasks.push(Task { id, label, needs });
    }
    Ok(tasks)
}

/// The stages that are not stored. A damaged one is set aside and counts as missing.
fn missing(
    store: &Store,
    stages: Vec<ManifestEntry>,
    depth: Depth,
    reporter: &dyn Reporter,
) -> Result<Vec<ManifestEntry>, HarnessError> {
    let mut missing = Vec::new();
    for stage in stages {
        let ManifestEntry { label, .. } = &stage;
        let Some(id) = StageId::parse(&stage.id) else { unreachable!("a plan's ids are plain") };
        let mut damage = None;
        if let Some(result) = store.intact(&id, depth, &mut |problem| damage = Some(problem))? {
            // A process that was killed right after it wrote the record left its checkpoints.
            store.remove_leftovers(&id, &result);
            continue;
        }
        if let Some(problem) = damage {
            let aside = store.set_aside(&id)?;
            let text = format!(
                "{label}: stored stage {id} is damaged ({problem}); set aside as {} and run again",
                aside.display()
            );
            reporter.event(&Event::Note { id: id.to_string(), text });
        }
        missing.push(stage);
    }
    Ok(missing)
}

/// Checks that the results folder can be written.
fn writable(results: &Path) -> Result<(), HarnessError> {
    for folder in [paths::runs(results), paths::store(results), paths::tables(results)] {
        fs::create_dir_all(&folder).map_err(HarnessError::io("create", &folder))?;
        tempfile::tempfile_in(&folder).map_err(HarnessError::io("write to", &folder))?;
    }
    Ok(())
}
