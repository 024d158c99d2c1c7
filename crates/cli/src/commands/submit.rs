//! `thinet submit`: the missing stages of an experiment as Slurm job arrays. And the hidden task that makes stages there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use signal_hook::consts::SIGUSR1;
use signal_hook::flag::register;
use thinet_harness::HarnessError;
use thinet_harness::events::EventLog;
use thinet_harness::run::StageRunner;
use thinet_harness::run::slurm::{SlurmOptions, submit as submit_plan};
use thinet_harness::store::paths;
use thinet_harness::study::Plan;
use thinet_models::Device;

use super::run::stage_arguments;
use super::{open_plan, plan_elsewhere, signals};
use crate::args::{Pace, Place, Study, Submit};
use crate::bars::Progress;

pub(crate) fn submit(arguments: &Submit) -> anyhow::Result<()> {
    let gpus = arguments.gpus_per_task.unwrap_or(0);
    let device = arguments.device.unwrap_or(if gpus > 0 { Device::Cuda(0) } else { Device::Cpu });
    let place = Place { device, data: arguments.data.clone(), results: arguments.results.clone() };
    let study = Study { spec: arguments.spec.clone(), seeds: arguments.seeds, place };
    let plan = plan_elsewhere(&study.spec, &study.place.options(study.seeds))?;
    let jobs = submit_plan(&plan, &slurm_options(arguments, &study, &plan)?, arguments.dry_run)?;
    if jobs.is_empty() {
        eprintln!("{}: nothing to submit: every stage is stored or in the queue", plan.spec.name);
        return Ok(());
    }
    for job in &jobs {
        let tasks = match job.tasks.len() {
            0 => "the tables, when all have ended".to_owned(),
            1 => "1 task".to_owned(),
            n => format!("{n} tasks"),
        };
        let number = job.job.map_or_else(|| "not submitted".to_owned(), |job| format!("job {job}"));
        println!("{number}: {tasks} ({})", job.script.display());
    }
    eprintln!("to follow them: thinet status {}", study.spec.display());
    Ok(())
}

fn slurm_options(arguments: &Submit, study: &Study, plan: &Plan) -> anyhow::Result<SlurmOptions> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let threads = u16::try_from(plan.spec.compute.threads).unwrap_or(u16::MAX);
    let mut sbatch = vec!["--ntasks=1".to_owned()];
    sbatch.push(format!("--cpus-per-task={}", arguments.cpus_per_task.unwrap_or(threads)));
    let mut option =
        |name: &str, value: Option<String>| sbatch.extend(value.map(|value| format!("--{name}={value}")));
    option("partition", arguments.partition.clone());
    option("time", arguments.time.clone());
    option("mem", arguments.mem.clone());
    option("gpus-per-task", arguments.gpus_per_task.map(|n| n.to_string()));
    sbatch.extend(arguments.sbatch.iter().cloned());
    let words = |command: &str, pace: &Pace| -> anyhow::Result<Vec<String>> {
        let mut words = vec![program.display().to_string(), command.to_owned()];
        words.extend(["--device".to_owned(), study.place.device.to_string()]);
        for argument in stage_arguments(study, pace) {
            let word =
                argument.into_string().ok().context("a path is not text that a batch script can hold")?;
            words.push(word);
        }
        Ok(words)
    };
    Ok(SlurmOptions {
        sbatch,
        max_running: arguments.max_running,
        task: words("task", &arguments.pace)?,
        tables: words("table", &Pace::default())?,
    })
}

/// Makes stages of an experiment one after the other. SIGTERM, as at pre-emption, keeps what there is and ends; SIGUSR1, sent
/// before the time is over, does the same and asks Slurm to queue the task again.
pub(crate) fn task(study: &Study, ids: &[String], pace: &Pace) -> anyhow::Result<()> {
    thinet_harness::run::keep_panics();
    let stop = signals::stop_when_asked()?;
    let queue_again = Arc::new(AtomicBool::new(false));
    register(SIGUSR1, queue_again.clone()).context("cannot handle signals")?;
    register(SIGUSR1, stop.flag()).context("cannot handle signals")?;
    let plan = open_plan(&study.spec, &study.place.options(study.seeds))?;
    let runner = StageRunner::new(&plan, &pace.options(stop))?;
    let progress = Progress::new(ids.len());
    let log = EventLog::open(&plan.run_folder().join(paths::LOG), &progress)?;
    let result = ids.iter().try_for_each(|id| runner.run_stage_caught(id, &log));
    progress.close();
    if matches!(result, Err(HarnessError::Stopped)) && queue_again.load(Ordering::SeqCst) {
        queue_task_again();
    }
    Ok(result?)
}

fn queue_task_again() {
    let Ok(job) = std::env::var("SLURM_JOB_ID") else { return };
    let asked = std::process::Command::new("scontrol").args(["requeue", &job]).status();
    match asked {
        Ok(status) if status.success() => eprintln!("time is nearly over: queued again as job {job}"),
        _ => eprintln!(
            "time is nearly over and the job could not be queued again; thinet submit sends what is missing"
        ),
    }
}
