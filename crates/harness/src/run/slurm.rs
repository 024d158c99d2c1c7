//! Slurm: submits the missing stages of a run as job arrays, dense nets first, and reads their state from the queue.
//!
//! A submission is a few files in `runs/<run>/slurm`: the batch scripts as they were submitted, and for each a list of stages, one line
//! per task. A restart resumes, so Slurm may requeue a task at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use thinet_files::{sealed, write_atomically};

use super::run_plan::{check_tables, start_folder};
use crate::error::HarnessError;
use crate::store::{Depth, StageId, StageKind, Store, paths};
use crate::study::{Plan, manifest};

/// Tasks in one array: Slurm's own default limit is 1001, from index 0.
const ARRAY: usize = 1000;
/// Seconds before the end of a job's time limit at which it is asked to store a checkpoint and to requeue.
const NOTICE: u32 = 120;

/// Resources of a job, and the command of its tasks.
#[derive(Clone, Debug, Default)]
pub struct SlurmOptions {
    /// Options of `sbatch` for all scripts, such as `--partition=gpu`.
    pub sbatch: Vec<String>,
    /// Maximum number of tasks of an array that run at a time.
    pub max_running: Option<u32>,
    /// The words of the command to which a task's stage ids are added.
    pub task: Vec<String>,
    /// The words of the command that writes the tables at the end.
    pub tables: Vec<String>,
}

/// One array or single job of a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SlurmJob {
    /// Slurm's job id; `None` if it was not submitted.
    pub job: Option<u64>,
    /// The batch script.
    pub script: PathBuf,
    /// The stages of each task, from task 1 on; empty for the job that writes the tables.
    pub tasks: Vec<Vec<String>>,
}

/// The state of a stage in Slurm's queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct QueueEntry {
    /// Job and task, such as `1234_5`.
    pub task: String,
    /// Slurm's state, such as `PENDING` or `RUNNING`.
    pub state: String,
    /// Why it waits.
    pub reason: String,
}

/// Writes the batch scripts for missing stages that are not in the queue; unless `is_dry`, submits them.
///
/// # Errors
/// If a file cannot be written, or `sbatch` is missing or fails.
pub fn submit(plan: &Plan, options: &SlurmOptions, is_dry: bool) -> Result<Vec<SlurmJob>, HarnessError> {
    let run = plan.run_folder();
    check_tables(&plan.spec, &plan.path, &plan.results)?;
    start_folder(plan)?;
    let folder = run.join(paths::SLURM);
    fs::create_dir_all(&folder).map_err(HarnessError::io("create", &folder))?;
    // Scripts can run in another folder.
    let folder = folder.canonicalize().map_err(HarnessError::io("open", &folder))?;
    let (store, manifest) = (Store::at(&plan.results), manifest(plan));
    let queued = if is_dry { BTreeMap::new() } else { queue(&run)? };
    let mut missing = BTreeSet::new();
    for id in manifest.stages.iter().filter_map(|stage| StageId::parse(&stage.id)) {
        if queued.contains_key(id.as_str()) {
            continue;
        }
        match store.brief(&id, Depth::Sizes) {
            Ok(Some(_)) => continue,
            Ok(None) => {}
            // A task runs missing stages and replaces none, so a damaged one is moved away.
            Err(HarnessError::Damaged { .. }) if is_dry => {}
            Err(HarnessError::Damaged { .. }) => drop(store.set_aside(&id)?),
            Err(error) => return Err(error),
        }
        missing.insert(id.to_string());
    }
    let is_missing = |id: &str| missing.contains(id);
    let of_kind = |kind: StageKind| manifest.stages.iter().filter(move |stage| stage.kind == kind);

    // The calibration of a dense net runs in the same task.
    let mut first: Vec<Vec<String>> = Vec::new();
    for dense in of_kind(StageKind::Dense) {
        let mut ids = vec![dense.id.clone()];
        ids.extend(
            of_kind(StageKind::Evidence).filter(|e| e.needs.contains(&dense.id)).map(|e| e.id.clone()),
        );
        ids.retain(|id| is_missing(id));
        first.extend((!ids.is_empty()).then_some(ids));
    }
    let cells: Vec<Vec<String>> = of_kind(StageKind::Cell)
        .filter(|cell| is_missing(&cell.id))
        .map(|cell| vec![cell.id.clone()])
        .collect();
    if first.is_empty() && cells.is_empty() {
        return Ok(Vec::new());
    }

    let mut submission =
        Submission { plan, options, is_dry, number: free_number(&folder)?, folder, jobs: Vec::new() };
    let mut before: Vec<u64> = Vec::new();
    // Cells also wait for dense nets of earlier submissions.
    for id in of_kind(StageKind::Dense).chain(of_kind(StageKind::Evidence)).map(|stage| &stage.id) {
        let job = queued.get(id).and_then(|queued| queued.task.split('_').next()?.parse().ok());
        before.extend(job.filter(|job| !before.contains(job)));
    }
    for (i, part) in first.chunks(ARRAY).enumerate() {
        before.extend(submission.array(&format!("dense-{i}"), part, &[])?);
    }
    let mut last = before.clone();
    for (i, part) in cells.chunks(ARRAY).enumerate() {
        last.extend(submission.array(&format!("cells-{i}"), part, &before)?);
    }
    submission.array("tables", &[], &last)?;
    Ok(submission.jobs)
}

struct Submission<'a> {
    plan: &'a Plan,
    options: &'a SlurmOptions,
    is_dry: bool,
    /// Counts the submissions of a run.
    number: usize,
    folder: PathBuf,
    jobs: Vec<SlurmJob>,
}

impl Submission<'_> {
    /// Writes and submits one script, which starts when the jobs in `after` have ended; returns its job id. Those jobs need not have
    /// succeeded: a task fails at once if its dense net failed; tasks of other seeds must still run.
    fn array(
        &mut self,
        name: &str,
        tasks: &[Vec<String>],
        after: &[u64],
    ) -> Result<Option<u64>, HarnessError> {
        let stem = format!("{:03}-{name}", self.number);
        let list = self.folder.join(format!("{stem}.list"));
        let lines: String = tasks.iter().map(|ids| ids.join(" ") + "\n").collect();
        if !tasks.is_empty() {
            write_atomically(&list, lines.as_bytes())?;
        }
        let script = self.folder.join(format!("{stem}.sbatch"));
        write_atomically(&script, self.script(&stem, tasks.len(), &list).as_bytes())?;
        let mut job = SlurmJob { job: None, script, tasks: tasks.to_vec() };
        if !self.is_dry {
            let mut command = Command::new("sbatch");
            command.arg("--parsable").arg("--kill-on-invalid-dep=yes");
            if !after.is_empty() {
                let after: Vec<String> = after.iter().map(ToString::to_string).collect();
                command.arg(format!("--dependency=afterany:{}", after.join(":")));
            }
            let answer = output(command.arg(&job.script))?;
            let number = answer.trim().split(';').next().unwrap_or_default();
            let number = number.parse().map_err(|_| HarnessError::Slurm {
                program: "sbatch".into(),
                problem: format!("answered {answer:?}"),
            })?;
            job.job = Some(number);
            let line = sealed::seal(&serde_json::to_string(&job).map_err(HarnessError::Json)?);
            let record = self.folder.join(format!("{stem}.job.json"));
            write_atomically(&record, line.as_bytes())?;
        }
        let number = job.job;
        self.jobs.push(job);
        Ok(number)
    }

    fn script(&self, stem: &str, tasks: usize, list: &Path) -> String {
        let mut options = vec![
            format!("--job-name=thinet-{}-{}", self.plan.spec.name, stem),
            format!("--output={}/%A_%a.out", self.folder.display()),
            "--open-mode=append".to_owned(),
        ];
        let command = if tasks == 0 {
            options[1] = format!("--output={}/%j.out", self.folder.display());
            quoted(&self.options.tables)
        } else {
            let limit = self.options.max_running.map(|n| format!("%{n}")).unwrap_or_default();
            options.push(format!("--array=1-{tasks}{limit}"));
            // A pre-empted task, or one on a node that died, resumes after a restart.
            options.push("--requeue".to_owned());
            options.push(format!("--signal=B:USR1@{NOTICE}"));
            quoted(&self.options.task) + " $stages"
        };
        options.extend(self.options.sbatch.iter().cloned());
        let mut script = "#!/bin/sh\n".to_owned();
        for option in options {
            script += &format!("#SBATCH {option}\n");
        }
        if tasks > 0 {
            let list = quoted(&[list.display().to_string()]);
            script += &format!("stages=$(sed -n \"${{SLURM_ARRAY_TASK_ID}}p\" {list})\n");
        }
        // Replaces the shell, so that Slurm's signals reach the program.
        script + "exec " + &command + "\n"
    }
}

/// Quotes words for a shell.
fn quoted(words: &[String]) -> String {
    let word = |word: &String| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+%@".contains(c);
        if !word.is_empty() && word.chars().all(is_plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// The first number without a file; creates the file, so that two submissions do not share a number.
fn free_number(folder: &Path) -> Result<usize, HarnessError> {
    for number in 1.. {
        let mark = folder.join(format!("{number:03}"));
        match fs::File::create_new(&mark) {
            Ok(_) => return Ok(number),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(HarnessError::io("create", mark)(e)),
        }
    }
    unreachable!("a folder holds finitely many files")
}

/// The stages of a run in Slurm's queue. Empty if nothing was ever submitted.
///
/// # Errors
/// If something was submitted and `squeue` fails.
pub fn queue(run: &Path) -> Result<BTreeMap<String, QueueEntry>, HarnessError> {
    let jobs = submitted(run)?;
    if jobs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let answer =
        output(Command::new("squeue").args(["--me", "--noheader", "--array", "--format=%F|%K|%T|%r"]))?;
    Ok(joined(&jobs, &answer))
}

/// The jobs that were submitted for a run.
fn submitted(run: &Path) -> Result<Vec<SlurmJob>, HarnessError> {
    let folder = run.join(paths::SLURM);
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(HarnessError::io("read", &folder))?.path();
        if path.to_string_lossy().ends_with(".job.json") {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).map_err(HarnessError::io("read", &path))?;
        let read = sealed::check(&text).and_then(|()| serde_json::from_str(&text).map_err(|e| e.to_string()));
        read.map_err(|problem| HarnessError::DamagedFile { path, problem })
    };
    paths.into_iter().map(read).collect()
}

/// Maps stages to the state of their tasks in the output of `squeue`: job, task, state and reason, one task per line.
fn joined(jobs: &[SlurmJob], answer: &str) -> BTreeMap<String, QueueEntry> {
    let mut found = BTreeMap::new();
    for line in answer.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let [job, task, state, reason] = fields[..] else { continue };
        let (Ok(job), Ok(task)) = (job.parse::<u64>(), task.parse::<usize>()) else { continue };
        // Finished jobs stay in the queue for some minutes.
        if !["PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD"].contains(&state) {
            continue;
        }
        let ids = jobs
            .iter()
            .find(|known| known.job == Some(job))
            .and_then(|known| known.tasks.get(task.checked_sub(1)?));
        for id in ids.into_iter().flatten() {
            let queued = QueueEntry {
                task: format!("{job}_{task}"),
                state: state.to_owned(),
                reason: reason.to_owned(),
            };
            found.insert(id.clone(), queued);
        }
    }
    found
}

fn output(command: &mut Command) -> Result<String, HarnessError> {
    let problem = match command.output() {
        Ok(output) if output.status.success() => {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("cannot be started: {error}"),
    };
    Err(HarnessError::Slurm { program: command.get_program().to_string_lossy().into_owned(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_joined_with_stages_by_line() {
        let job = |job, tasks: &[&[&str]]| SlurmJob {
            job: Some(job),
            script: PathBuf::new(),
            tasks: tasks.iter().map(|ids| ids.iter().map(ToString::to_string).collect()).collect(),
        };
        let jobs = [job(7, &[&["dense-a", "evidence-a"], &["dense-b"]]), job(8, &[&["cell-a"], &["cell-b"]])];
        let answer = "7|1|RUNNING|None\n8|1|PENDING|Dependency\n8|2|COMPLETED|None\n9|1|RUNNING|None\n8|N/A|PENDING|x\nnoise\n8|3|RUNNING|None\n";
        let found = joined(&jobs, answer);
        let states: Vec<(&str, &str, &str)> =
            found.iter().map(|(id, q)| (id.as_str(), q.task.as_str(), q.state.as_str())).collect();
        assert_eq!(
            states,
            [("cell-a", "8_1", "PENDING"), ("dense-a", "7_1", "RUNNING"), ("evidence-a", "7_1", "RUNNING")]
        );
        assert_eq!(found["cell-a"].reason, "Dependency");
    }

    #[test]
    fn words_survive_a_shell() {
        let words = ["plain", "two words", "it's", "", "$HOME"].map(str::to_owned);
        let output =
            Command::new("sh").arg("-c").arg(format!("printf '%s|' {}", quoted(&words))).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "plain|two words|it's||$HOME|");
    }

    #[test]
    fn submissions_are_numbered() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!((free_number(dir.path()).unwrap(), free_number(dir.path()).unwrap()), (1, 2));
    }
}
