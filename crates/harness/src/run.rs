//! Running a plan: the missing stages in order, in this process or in workers, then the records and the tables.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use thinet_models::MemoryFormat;

use crate::environment::Environment;
use crate::error::HarnessError;
use crate::lock::Lock;
use crate::plan::Plan;
use crate::progress::{Event, Reporter};
use crate::records::StudyRecord;
use crate::stages::{Context, cell, dense, evidence};
use crate::store::{StageId, Store, write_atomically};
use crate::study::study;
use crate::tables::{self, Table};
use crate::train::Feed;
use crate::workers::{WorkerCommand, run_all};

/// How a plan is run; none of it changes a result.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Stages that run at a time, each in a process of its own; 1 runs everything in this process.
    pub jobs: usize,
    /// How to start a worker. Needed for more than one job.
    pub worker: Option<WorkerCommand>,
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
    /// Cells that failed; the tables say "not run" of them.
    pub failure: Option<HarnessError>,
}

/// Runs what is missing and writes the tables.
///
/// # Errors
/// If the results folder cannot be written, the experiment is running already, or a stage fails that others need. Cells that
/// fail cost themselves alone, see [`Outcome::failure`].
pub fn run(plan: &Plan, options: &RunOptions, reporter: &dyn Reporter) -> Result<Outcome, HarnessError> {
    let folder = plan.run_folder();
    writable(&plan.results)?;
    fs::create_dir_all(&folder).map_err(HarnessError::io("create", &folder))?;
    let _lock = Lock::try_take(&folder.join("lock"), &folder)?;
    write_atomically(&folder.join("resolved.toml"), plan.spec.to_toml()?.as_bytes())?;
    let checkout = plan.path.parent().unwrap_or(Path::new("."));
    let environment = Environment::here(plan.device, plan.spec.compute.threads, options.jobs, checkout);
    let environment = serde_json::to_string_pretty(&environment).map_err(HarnessError::Json)? + "\n";

    let log = Logged { file: open_log(&folder)?, inner: reporter };
    let (stages_run, failure) = run_stages(plan, options, &log)?;

    // The environment is that of the process which did the work; a run that only reads keeps the old one.
    let environment_file = folder.join("env.json");
    if stages_run > 0 || !environment_file.exists() {
        write_atomically(&environment_file, environment.as_bytes())?;
    }
    let study = study(plan)?;
    let rows = tables::parquet_bytes(&tables::rows_frame(&study)?)?;
    write_atomically(&folder.join("rows.parquet"), &rows)?;
    let tables = study_tables(plan, &study)?;
    let mut written = Vec::new();
    for table in &tables {
        written.push(tables::write(&plan.results.join("tables"), table, &plan.run)?);
    }
    Ok(Outcome { study, tables, written, stages_run, failure })
}

/// The tables of a study. The resolved spec and the environment of the run go with the first.
///
/// # Errors
/// If a table cannot be made or a file of the run's folder cannot be read.
pub fn study_tables(plan: &Plan, study: &StudyRecord) -> Result<Vec<Table>, HarnessError> {
    let mut tables = tables::selectors(study)?;
    for suffix in ["resolved.toml", "env.json"] {
        let path = plan.run_folder().join(suffix);
        if let Some(main) = tables.first_mut()
            && path.exists()
        {
            let text = fs::read_to_string(&path).map_err(HarnessError::io("read", &path))?;
            main.attachments.push(tables::Attachment { suffix, text });
        }
    }
    Ok(tables)
}

/// Runs one stage of a plan by its id; what a worker does.
///
/// # Errors
/// If the plan has no such stage, or it fails.
pub fn run_stage(plan: &Plan, id: &str, reporter: &dyn Reporter) -> Result<(), HarnessError> {
    let store = Store::at(&plan.results);
    let feed = feed(plan)?;
    let context = Context { plan, store: &store, feed: &feed, reporter };
    let _lock = Lock::take(&store.lock_file(id))?;
    if let Some(stage) = plan.dense.iter().find(|stage| stage.id.as_str() == id) {
        dense::ensure(&context, stage)?;
    } else if let Some(stage) = plan.dense.iter().find(|stage| stage.evidence.as_str() == id) {
        evidence::ensure(&context, stage)?;
    } else if let Some(stage) = plan.cells.iter().find(|stage| stage.id.as_str() == id) {
        cell::ensure(&context, stage)?;
    } else {
        let problem = "the plan has no such stage; spec, data or options differ from the parent's".into();
        return Err(HarnessError::Worker { stage: id.to_owned(), problem });
    }
    note_left_out(plan, id, reporter);
    Ok(())
}

/// Stages that do not need each other, as (id, label).
type Wave<'a> = Vec<(&'a StageId, String)>;

/// Dense nets, then evidence, which cells need; then the cells.
fn waves(plan: &Plan) -> ([Wave<'_>; 2], Wave<'_>) {
    let dense = plan.dense.iter().map(|d| (&d.id, format!("dense net, seed {}", d.seed))).collect();
    let evidence = plan.dense.iter().map(|d| (&d.evidence, format!("calibration, seed {}", d.seed)));
    let evidence = if plan.spec.is_one_shot() { evidence.collect() } else { Vec::new() };
    let cells = plan.cells.iter().map(|cell| (&cell.id, cell.outline.label())).collect();
    ([dense, evidence], cells)
}

/// Runs what is missing; returns how many stages that were, and what failed of the cells.
fn run_stages(
    plan: &Plan,
    options: &RunOptions,
    reporter: &dyn Reporter,
) -> Result<(usize, Option<HarnessError>), HarnessError> {
    let store = Store::at(&plan.results);
    let (needed, cells) = waves(plan);
    let cells = missing(&store, cells, false, reporter)?;
    let mut stages_run = 0;
    for wave in needed {
        // Only what is read is worth its checksum: gigabytes of dense nets are left alone when every cell is there.
        let wave = missing(&store, wave, !cells.is_empty(), reporter)?;
        stages_run += wave.len();
        if let Some(failure) = run_wave(plan, options, wave, reporter) {
            return Err(failure);
        }
    }
    stages_run += cells.len();
    Ok((stages_run, run_wave(plan, options, cells, reporter)))
}

/// The stages of a wave that are not stored. One that is damaged is set aside and made again.
fn missing(
    store: &Store,
    wave: Wave<'_>,
    with_files: bool,
    reporter: &dyn Reporter,
) -> Result<Vec<(String, String)>, HarnessError> {
    let mut missing = Vec::new();
    for (id, label) in wave {
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

/// Runs stages that do not need each other, all of them, whatever happens to one. What failed, in one error.
fn run_wave(
    plan: &Plan,
    options: &RunOptions,
    stages: Vec<(String, String)>,
    reporter: &dyn Reporter,
) -> Option<HarnessError> {
    let total = stages.len();
    match &options.worker {
        Some(worker) if options.jobs > 1 && total > 1 => {
            let failures = run_all(worker, stages, options.jobs, reporter);
            let first = failures.first()?;
            let (failed, first) = (failures.len(), format!("{}: {}", first.label, first.error));
            Some(HarnessError::StagesFailed { failed, total, first })
        }
        _ => {
            let run = |(id, label): (String, String)| Some((label, run_stage(plan, &id, reporter).err()?));
            let mut failures: Vec<_> = stages.into_iter().filter_map(run).collect();
            if failures.is_empty() {
                return None;
            }
            let (failed, (label, first)) = (failures.len(), failures.swap_remove(0));
            // Alone, the error itself says most, and its kind decides the exit code.
            if total == 1 {
                return Some(first);
            }
            Some(HarnessError::StagesFailed { failed, total, first: format!("{label}: {first}") })
        }
    }
}

/// How images reach the net.
fn feed(plan: &Plan) -> Result<Feed, HarnessError> {
    let compute = &plan.spec.compute;
    thinet_models::set_compute_threads(compute.threads)?;
    // Training alone may round, and says so when it starts.
    thinet_models::set_tf32(false)?;
    thinet_models::set_deterministic(compute.deterministic)?;
    let format = match compute.channels_last {
        true => MemoryFormat::ChannelsLast,
        false => MemoryFormat::Contiguous,
    };
    let transform = plan.transform.clone();
    let loader_threads = loader_threads(plan);
    Ok(Feed {
        device: plan.device,
        format,
        precision: compute.precision,
        tf32: compute.tf32,
        transform,
        loader_threads,
    })
}

/// One thread works ahead where images lie in memory and the cores compute; where photographs are decoded for a GPU,
/// all cores do.
fn loader_threads(plan: &Plan) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if plan.device.is_cuda() && plan.data.train.is_decoded_each_time() { cores } else { 1 }
}

/// Names the files that were left out as damaged.
fn note_left_out(plan: &Plan, id: &str, reporter: &dyn Reporter) {
    let mut files = plan.data.train.left_out();
    for set in [&plan.data.calibration, &plan.data.test] {
        files.extend(set.left_out());
    }
    files.sort();
    files.dedup();
    for file in files {
        reporter.event(&Event::Note { id: id.to_owned(), text: format!("left out as damaged: {file}") });
    }
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

/// Passes events on and keeps those that last in the run's `log.jsonl`.
struct Logged<'a> {
    file: Mutex<(fs::File, PathBuf)>,
    inner: &'a dyn Reporter,
}

fn open_log(folder: &Path) -> Result<Mutex<(fs::File, PathBuf)>, HarnessError> {
    let path = folder.join("log.jsonl");
    let file =
        fs::File::options().create(true).append(true).open(&path).map_err(HarnessError::io("open", &path))?;
    Ok(Mutex::new((file, path)))
}

impl Reporter for Logged<'_> {
    fn event(&self, event: &Event) {
        self.inner.event(event);
        if matches!(event, Event::Progress { .. }) {
            return;
        }
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let line = serde_json::json!({ "unix-seconds": seconds, "what": event });
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not end a run whose results can.
        if let Err(e) = writeln!(file.0, "{line}") {
            let text = format!("cannot write {}: {e}", file.1.display());
            self.inner.event(&Event::Note { id: String::new(), text });
        }
    }
}
