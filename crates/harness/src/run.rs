//! Running a plan: the missing stages in order, in this process or in workers, then the records and the tables.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::check;
use crate::claim::{Claim, Patience};
use crate::environment::Environment;
use crate::error::HarnessError;
use crate::log::Logged;
use crate::plan::Plan;
use crate::progress::{Event, Reporter};
use crate::records::{Status, StudyRecord};
use crate::runner::{Runner, environment};
use crate::schedule::{Schedule, Task};
use crate::spec::Spec;
use crate::stage_list::{ListedStage, StageList};
use crate::stop::Stop;
use crate::store::{StageId, Store, write_atomically};
use crate::study::study;
use crate::tables::{self, StageSeconds, Table};
use crate::workers::{Ended, Inputs, Slot, WorkerCommand};

/// Where a run was made, in its folder.
const ENVIRONMENT: &str = "env.json";

/// How a plan is run; none of it changes a result.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// How to start each worker; as many stages are made at a time. None: everything is done in this process.
    pub workers: Vec<WorkerCommand>,
    /// A training keeps its state this often, less often if writing would take more than a hundredth of the time; zero: after
    /// every step.
    pub checkpoint_every: Duration,
    /// How long the claim of another machine may stay unchanged until its holder counts as gone. File systems of clusters may
    /// show a change half a minute late.
    pub claim_expiry: Duration,
    /// Asks the run to end.
    pub stop: Stop,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            workers: Vec::new(),
            checkpoint_every: Duration::from_secs(15),
            claim_expiry: Duration::from_secs(90),
            stop: Stop::default(),
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Everything that was measured.
    pub study: StudyRecord,
    /// The tables made from it.
    pub tables: Vec<Table>,
    /// What the writing of the tables did.
    pub written: Vec<tables::Written>,
    /// Stages that ran now; the others were stored before.
    pub stages_run: usize,
    /// What failed; the tables say "not run" of it.
    pub failure: Option<HarnessError>,
}

/// Runs what is missing and writes the tables.
///
/// # Errors
/// If the results folder cannot be written, the experiment is running already, it is asked to stop, or no cell comes to an
/// end. Stages that fail cost what needs them and nothing else, see [`Outcome::failure`].
pub fn run(plan: &Plan, options: &RunOptions, reporter: &dyn Reporter) -> Result<Outcome, HarnessError> {
    let folder = plan.run_folder();
    writable(&plan.results)?;
    check_tables(&plan.spec, &plan.path, &plan.results)?;
    fs::create_dir_all(&folder).map_err(HarnessError::io("create", &folder))?;
    let _claim =
        Claim::try_take(&folder.join("claim"), &folder, Patience::expiring_after(options.claim_expiry))?;
    start_folder(plan)?;
    let log = Logged::open(&folder.join("log.jsonl"), reporter)?;
    let (stages_run, failure) = run_stages(plan, options, &log)?;

    // The environment is that of the process which did the work; a run that only reads keeps the old one.
    if stages_run > 0 {
        write_environment(plan, options.workers.len().max(1))?;
    }
    let study = study(plan)?;
    match failure {
        // Without a single cell there is nothing to make tables of.
        Some(failure) if study.cells.iter().all(|cell| cell.status == Status::NotRun) => Err(failure),
        _ => Ok(Outcome { stages_run, failure, ..write_tables(plan, study)? }),
    }
}

fn write_environment(plan: &Plan, jobs: usize) -> Result<(), HarnessError> {
    let environment = Environment { jobs: Some(jobs), host: None, ..environment(plan) };
    let text = serde_json::to_string_pretty(&environment).map_err(HarnessError::Json)? + "\n";
    write_atomically(&plan.run_folder().join(ENVIRONMENT), text.as_bytes())
}

/// Writes the rows and the tables of what is stored.
///
/// # Errors
/// If the tables are those of another experiment, one cannot be made, or a file cannot be written.
pub fn write_tables(plan: &Plan, study: StudyRecord) -> Result<Outcome, HarnessError> {
    check_tables(&plan.spec, &plan.path, &plan.results)?;
    start_folder(plan)?;
    let folder = plan.run_folder();
    if !folder.join(ENVIRONMENT).exists() {
        write_environment(plan, 1)?;
    }
    let rows = tables::parquet_bytes(&tables::rows_frame(&study)?)?;
    write_atomically(&folder.join("rows.parquet"), &rows)?;
    let tables = study_tables(plan, &study)?;
    let mut written = Vec::new();
    for table in &tables {
        written.push(tables::write(&plan.results.join("tables"), table, &plan.run)?);
    }
    Ok(Outcome { study, tables, written, stages_run: 0, failure: None })
}

/// Refuses a spec whose tables would take the place of another experiment's.
///
/// # Errors
/// Names both experiments and the key to change; or a table's file that cannot be read.
pub fn check_tables(spec: &Spec, path: &Path, results: &Path) -> Result<(), HarnessError> {
    let folder = results.join("tables");
    for suffix in ["", "-summary", "-tau"] {
        let table = format!("{}{suffix}", spec.table_name());
        let owners = tables::owners(&folder, &table)?;
        if let Some(other) = owners.iter().find(|owner| **owner != spec.name) {
            let (file, own) = (folder.join(format!("{table}.csv")), &spec.name);
            let problem = format!(
                "{} is of the experiment {other:?}, and this one is {own:?}; give it another table with the key `table`, or \
                 move that one's files away",
                file.display()
            );
            return Err(check::value(path, "table", &problem));
        }
    }
    Ok(())
}

/// The tables of a study. The resolved spec, the environment of the run and the times of its stages go with the first.
///
/// # Errors
/// If a table cannot be made or a file of the run's folder cannot be read.
fn study_tables(plan: &Plan, study: &StudyRecord) -> Result<Vec<Table>, HarnessError> {
    let mut tables = tables::selectors(study)?;
    for suffix in ["resolved.toml", ENVIRONMENT] {
        let path = plan.run_folder().join(suffix);
        if let Some(main) = tables.first_mut()
            && path.exists()
        {
            let text = fs::read_to_string(&path).map_err(HarnessError::io("read", &path))?;
            main.attachments.push(tables::Attachment { suffix, text });
        }
    }
    if let Some(main) = tables.first_mut() {
        main.attachments.push(tables::seconds(&stage_seconds(plan))?);
    }
    Ok(tables)
}

/// The time that each stored stage took.
fn stage_seconds(plan: &Plan) -> Vec<StageSeconds> {
    let store = Store::at(&plan.results);
    let of_stage = |stage: ListedStage| {
        // A record that cannot be read is named where its results are needed.
        let result = store.find(&stage.id).ok().flatten()?;
        let environment = result.environment;
        let (device, processor) = environment.map(|e| (e.device, e.cpu)).unzip();
        let (stage, label, seconds) = (stage.id, stage.label, result.seconds);
        Some(StageSeconds { stage, label, seconds, device, processor: processor.flatten() })
    };
    StageList::of(plan).stages.into_iter().filter_map(of_stage).collect()
}

/// What is there from the start of a run: the spec with every default filled in, and the list of its stages.
pub(crate) fn start_folder(plan: &Plan) -> Result<(), HarnessError> {
    let folder = plan.run_folder();
    fs::create_dir_all(&folder).map_err(HarnessError::io("create", &folder))?;
    write_atomically(&folder.join("resolved.toml"), plan.spec.to_toml()?.as_bytes())?;
    StageList::of(plan).write(&folder)
}

/// Stages of one kind, as (id, label).
type Kind<'a> = Vec<(&'a StageId, String)>;

/// Makes what is missing; returns how many stages that were, and what failed.
fn run_stages(
    plan: &Plan,
    options: &RunOptions,
    reporter: &dyn Reporter,
) -> Result<(usize, Option<HarnessError>), HarnessError> {
    let tasks = tasks(plan, reporter)?;
    if tasks.is_empty() {
        return Ok((0, None));
    }
    let schedule = Schedule::new(tasks);
    if options.workers.is_empty() {
        let runner = Runner::new(plan, options)?;
        while let Some(task) = schedule.next(&options.stop) {
            note_end(&schedule, task, runner.run_stage(&task.id, reporter), reporter);
        }
    } else {
        run_in_workers(&Store::at(&plan.results), &schedule, options, reporter);
    }
    let (done, failure) = schedule.outcome();
    options.stop.check()?;
    Ok((done, failure))
}

fn run_in_workers(store: &Store, schedule: &Schedule, options: &RunOptions, reporter: &dyn Reporter) {
    let (inputs, all_ended) = (Inputs::default(), Stop::default());
    std::thread::scope(|scope| {
        let mut slots = Vec::new();
        for command in &options.workers {
            let inputs = &inputs;
            slots.push(scope.spawn(move || {
                let mut slot = Slot::new(command, inputs);
                while let Some(task) = schedule.next(&options.stop) {
                    let failed = |problem: String| {
                        // The worker had no time to.
                        store.note_failure(&task.id, &problem);
                        HarnessError::Worker { stage: task.id.clone(), problem }
                    };
                    let result = slot.run(&task.id, &task.label, reporter).map_err(|ended| match ended {
                        Ended::Stopped => HarnessError::Stopped,
                        _ if options.stop.is_set() => HarnessError::Stopped,
                        Ended::Died(how) => failed(how),
                        Ended::Failed(why) => HarnessError::Worker { stage: task.id.clone(), problem: why },
                    });
                    note_end(schedule, task, result, reporter);
                }
            }));
        }
        scope.spawn(|| {
            while !all_ended.is_set() {
                if options.stop.is_set() {
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

fn note_end(schedule: &Schedule, task: &Task, result: Result<(), HarnessError>, reporter: &dyn Reporter) {
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
    schedule.ended(task, result);
}

/// The stages that are not stored, dense nets first, then what the cells need of them, then the cells.
fn tasks(plan: &Plan, reporter: &dyn Reporter) -> Result<Vec<Task>, HarnessError> {
    let store = Store::at(&plan.results);
    let dense: Kind<'_> = plan.dense.iter().map(|d| (&d.id, d.label())).collect();
    let evidence = plan.dense.iter().filter(|_| plan.spec.is_one_shot());
    let evidence: Kind<'_> = evidence.map(|d| (&d.evidence, d.evidence_label())).collect();
    let cells: Kind<'_> = plan.cells.iter().map(|cell| (&cell.id, cell.outline.label())).collect();
    let cells = missing(&store, cells, false, reporter)?;
    // Only what is read is worth its checksum: gigabytes of dense nets are left alone when every cell is there.
    let is_read = !cells.is_empty();
    let mut tasks: Vec<Task> = Vec::new();
    let list = StageList::of(plan);
    let parents = list.parents();
    let before = [missing(&store, dense, is_read, reporter)?, missing(&store, evidence, is_read, reporter)?];
    for (id, label) in before.into_iter().flatten().chain(cells) {
        // A parent that is stored is no task.
        let parent = parents.get(id.as_str());
        let needs = parent.and_then(|parent| tasks.iter().position(|task| task.id == *parent));
        tasks.push(Task { id, label, needs });
    }
    Ok(tasks)
}

/// The stages of a kind that are not stored. One that is damaged is set aside and made again.
fn missing(
    store: &Store,
    stages: Kind<'_>,
    with_files: bool,
    reporter: &dyn Reporter,
) -> Result<Vec<(String, String)>, HarnessError> {
    let mut missing = Vec::new();
    for (id, label) in stages {
        let mut damage = None;
        if store.intact(id, with_files, &mut |problem| damage = Some(problem))?.is_some() {
            continue;
        }
        if let Some(problem) = damage {
            let aside = store.set_aside(id)?;
            let text = format!(
                "{label}: stored stage {id} is damaged ({problem}); set aside as {} and made again",
                aside.display()
            );
            reporter.event(&Event::Note { id: id.to_string(), text });
        }
        missing.push((id.to_string(), label));
    }
    Ok(missing)
}

/// Tries the results folder before any work.
fn writable(results: &Path) -> Result<(), HarnessError> {
    for name in ["runs", "store", "tables"] {
        let folder = results.join(name);
        fs::create_dir_all(&folder).map_err(HarnessError::io("create", &folder))?;
        tempfile::tempfile_in(&folder).map_err(HarnessError::io("write to", &folder))?;
    }
    Ok(())
}
