//! Progress for people: bars with time left on a terminal, plain lines in a log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io::IsTerminal as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use thinet_harness::events::{Event, Reporter};
use thinet_harness::run::WorkerMessage;
use thinet_report::tables::one_line;

use crate::words::duration;

/// How often a long step reports its progress in a log.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Shows the events of a run on standard error.
pub(crate) struct Progress {
    bars: Option<Bars>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Number of stages to run; 0 if it is not known.
    stages: usize,
    /// Finished stages, each once: one whose worker dies after its end is started again.
    finished: BTreeSet<String>,
    running: BTreeMap<String, Running>,
}

struct Running {
    label: String,
    step: String,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    style: ProgressStyle,
}

impl Bars {
    fn new(stages: usize, estimate: f64) -> Option<Self> {
        let style = |template: &str| ProgressStyle::with_template(template).ok();
        let left = move |state: &ProgressState, out: &mut dyn Write| {
            let [done, stages] = [state.pos(), state.len().unwrap_or(0)];
            // A failure to draw cannot be reported.
            let _ = out.write_str(&time_left(done, stages, state.elapsed().as_secs_f64(), estimate));
        };
        let all = MultiProgress::new();
        let total = all.add(ProgressBar::new(stages as u64));
        let style_of_total = style("{wide_bar} {pos}/{len} stages, {elapsed_precise} so far, {all_left}")?;
        total.set_style(style_of_total.with_key("all_left", left));
        total.enable_steady_tick(Duration::from_secs(1));
        Some(Self {
            all,
            total,
            style: style("  {prefix:32!} {msg:34!} {bar:20} {percent:>3} % {eta:>4} left")?,
        })
    }
}

/// The time left of a run, in words: from the stages that have ended, before the first from the estimate in seconds.
fn time_left(done: u64, stages: u64, elapsed: f64, estimate: f64) -> String {
    let left = match done {
        0 => estimate - elapsed,
        done => elapsed / done as f64 * stages.saturating_sub(done) as f64,
    };
    if done == 0 && left <= 0.0 {
        return "time left not known yet".to_owned();
    }
    format!("about {} left", duration(left))
}

impl Progress {
    /// For `stages` stages of unknown duration; 0 if their number is unknown, too.
    pub(crate) fn new(stages: usize) -> Self {
        Self::of_run(stages, 0.0)
    }

    /// For a run that has `stages` stages to do, in about `estimate` seconds.
    pub(crate) fn of_run(stages: usize, estimate: f64) -> Self {
        let bars = if std::io::stderr().is_terminal() { Bars::new(stages, estimate) } else { None };
        Self { bars, state: Mutex::new(State { stages, ..State::default() }) }
    }

    fn expects(&self, stages: usize) {
        self.state().stages = stages;
        if let Some(bars) = &self.bars {
            bars.total.set_length(stages as u64);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints one line, also where the text has line ends, as in the name of a file.
    fn line(&self, text: &str) {
        let text = one_line(text);
        match &self.bars {
            Some(bars) => bars.total.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    fn started(&self, id: &str, label: &str) {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.all.add(ProgressBar::new(0));
            bar.set_style(bars.style.clone());
            bar.set_prefix(one_line(label));
            bar
        });
        if bar.is_none() {
            self.line(&format!("start  {label}"));
        }
        let running =
            Running { label: label.to_owned(), step: String::new(), bar, last_line: Instant::now() };
        self.state().running.insert(id.to_owned(), running);
    }

    fn advanced(&self, id: &str, step: &str, done: u64, total: u64, loss: Option<f64>) {
        let mut state = self.state();
        let Some(running) = state.running.get_mut(id) else { return };
        let loss = loss.map(|loss| format!("  loss {loss:.3}")).unwrap_or_default();
        if let Some(bar) = &running.bar {
            if running.step != step {
                step.clone_into(&mut running.step);
                bar.reset();
            }
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(format!("{step}{loss}"));
        } else if running.last_line.elapsed() >= LINE_EVERY {
            running.last_line = Instant::now();
            eprintln!("       {}: {step} {done}/{total}{loss}", one_line(&running.label));
        }
    }

    fn finished(&self, id: &str, summary: &str, seconds: f64) {
        let (label, finished, stages) = {
            let mut state = self.state();
            state.finished.insert(id.to_owned());
            let running = state.running.remove(id);
            if let Some(bar) = running.as_ref().and_then(|running| running.bar.as_ref()) {
                bar.finish_and_clear();
            }
            let label = running.map_or_else(|| id.to_owned(), |running| running.label);
            (label, state.finished.len(), state.stages)
        };
        if let Some(bars) = &self.bars {
            bars.total.set_position(finished as u64);
        }
        // `thinet verify` does not know how many.
        let of = if stages == 0 { String::new() } else { format!("/{stages}") };
        self.line(&format!("done   {finished}{of}  {label}: {summary} ({seconds:.1} s)"));
    }

    fn failed(&self, id: &str, label: &str, error: &str) {
        let running = self.state().running.remove(id);
        if let Some(bar) = running.and_then(|running| running.bar) {
            bar.finish_and_clear();
        }
        self.line(&format!("failed {label}: {error}"));
    }

    /// Removes the bars.
    pub(crate) fn close(&self) {
        if let Some(bars) = &self.bars {
            bars.total.finish_and_clear();
        }
    }
}

impl Reporter for Progress {
    fn event(&self, event: &Event) {
        match event {
            Event::RunStarted { stages } => self.expects(*stages),
            Event::StageStarted { id, label } => self.started(id, label),
            Event::Progress { id, step, done, total, loss, .. } => {
                self.advanced(id, step, *done, *total, *loss);
            }
            Event::Measured { .. } => {}
            Event::StageFailed { id, label, error } => self.failed(id, label, error),
            Event::Note { text, .. } => self.line(&format!("note   {text}")),
            Event::StageFinished { id, summary, seconds } => self.finished(id, summary, *seconds),
        }
    }
}

/// A worker's progress is passed on at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Prints events as lines of JSON for the parent of a worker, progress at a limited rate.
pub(crate) struct JsonLines {
    last: Mutex<Option<Instant>>,
}

impl JsonLines {
    pub(crate) fn new() -> Self {
        Self { last: Mutex::new(None) }
    }

    pub(crate) fn send(&self, message: &WorkerMessage) {
        if let Ok(line) = serde_json::to_string(message) {
            println!("{line}");
        }
    }

    /// Whether a progress event is due; the last one of a step always is.
    fn is_due(&self, done: u64, total: u64) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = done == total || last.is_none_or(|last| last.elapsed() >= PROGRESS_EVERY);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

impl Reporter for JsonLines {
    fn event(&self, event: &Event) {
        if let Event::Progress { done, total, .. } = event
            && !self.is_due(*done, *total)
        {
            return;
        }
        self.send(&WorkerMessage::Event(event.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_estimated_until_a_stage_has_ended() {
        assert_eq!(time_left(0, 8, 10.0, 610.0), "about 10 min left");
        assert_eq!(time_left(0, 8, 700.0, 610.0), "time left not known yet");
        assert_eq!(time_left(2, 8, 100.0, 610.0), "about 5 min left");
        assert_eq!(time_left(8, 8, 100.0, 610.0), "about 0 s left");
    }
}
