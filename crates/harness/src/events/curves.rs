//! The curves of a stage: loss, learning rate, accuracy and reconstruction error, written to an event file for TensorBoard and to the
//! run's `metrics.csv` under the same names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use thinet_report::records::Row;

use super::event::{Event, Reporter};
use super::metrics_file::MetricsFile;
use super::tensorboard::{EventFile, HParam};
use crate::store::paths;

/// Minimum time between two points of a curve.
const POINT_EVERY: Duration = Duration::from_millis(250);

/// Forwards events and writes the curves of one stage: to an event file in a folder named after it, and to the run's metrics.
pub(crate) struct Curves<'a> {
    /// The run's folder.
    folder: PathBuf,
    /// What TensorBoard filters stages by.
    hparams: BTreeMap<&'static str, HParam>,
    inner: &'a dyn Reporter,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: Option<(EventFile, MetricsFile)>,
    last_point: BTreeMap<String, Instant>,
    /// Number of rows by tag: the position of the next row on the horizontal axis.
    measured: BTreeMap<String, i64>,
}

impl<'a> Curves<'a> {
    /// The curves of a stage of the run in this folder; files are created when the stage starts.
    pub(crate) fn new(
        folder: &Path,
        hparams: BTreeMap<&'static str, HParam>,
        inner: &'a dyn Reporter,
    ) -> Self {
        Self { folder: folder.to_owned(), hparams, inner, state: Mutex::default() }
    }

    /// Writes what the event adds to the curves.
    fn draw(&self, event: &Event) -> std::io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::StageStarted { id, label } => {
                let board = self.folder.join(paths::TENSORBOARD).join(folder_name(label));
                let mut events = EventFile::create(&board)?;
                events.session_start(&self.hparams)?;
                let metrics = MetricsFile::open(&self.folder.join(paths::METRICS), id, label)?;
                state.files = Some((events, metrics));
            }
            Event::Progress { step, done, total, loss: Some(loss), lr, .. } => {
                let is_due = state.last_point.get(step).is_none_or(|last| last.elapsed() >= POINT_EVERY);
                if is_due || done == total {
                    state.last_point.insert(step.clone(), Instant::now());
                    let at = i64::try_from(*done).unwrap_or(i64::MAX);
                    state.scalar(&format!("loss/{step}"), at, *loss)?;
                    if let Some(lr) = lr {
                        state.scalar(&format!("learning rate/{step}"), at, *lr)?;
                    }
                }
            }
            Event::Measured { rows, .. } => {
                for row in rows {
                    let tag = tag(row);
                    let at = state.measured.entry(tag.clone()).or_default();
                    let this = *at;
                    *at += 1;
                    state.scalar(&tag, this, row.value)?;
                }
            }
            Event::StageFinished { .. } => {
                if let Some((mut events, _)) = state.files.take() {
                    events.session_end()?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Reporter for Curves<'_> {
    fn event(&self, event: &Event) {
        self.inner.event(event);
        if let Err(error) = self.draw(event) {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            // A failed write must not end the run. It is reported once: without files no more curves are written.
            state.files = None;
            let text = format!("no curves: {}: {error}", self.folder.display());
            self.inner.event(&Event::Note { id: String::new(), text });
        }
    }
}

impl State {
    fn scalar(&mut self, tag: &str, step: i64, value: f64) -> std::io::Result<()> {
        let Some((events, metrics)) = &mut self.files else { return Ok(()) };
        events.scalar(tag, step, value)?;
        metrics.add(tag, step, value)
    }
}

/// Values of the whole net are grouped by metric and phase, those of a layer by layer.
fn tag(row: &Row) -> String {
    let (metric, phase) = (row.metric.name(), row.phase.name());
    if row.layer.is_empty() { format!("{metric}/{phase}") } else { format!("{metric} {phase}/{}", row.layer) }
}

/// A label without characters that are special to file systems or shells: `thinet r=0.5 seed 0` becomes `thinet-r0.5-seed-0`.
fn folder_name(label: &str) -> String {
    let kept =
        |c: char| if c.is_alphanumeric() || ".+_".contains(c) { Some(c) } else { (c != '=').then_some('-') };
    let name: String = label.chars().filter_map(kept).collect();
    name.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Silent;
    use thinet_report::records::{Metric, Phase};

    #[test]
    fn a_stage_writes_its_curves_to_a_folder_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let board =
            Curves::new(dir.path(), BTreeMap::from([("method", HParam::Text("thinet".into()))]), &Silent);
        let id = String::from("cell-1");
        board.event(&Event::StageStarted { id: id.clone(), label: "thinet+scale r=0.5 seed 0".into() });
        let row = Row {
            layer: "conv1".into(),
            phase: Phase::AfterCut,
            metric: Metric::ReconstructionError,
            value: 0.5,
        };
        board.event(&Event::Measured { id: id.clone(), rows: vec![row] });
        let (step, loss, lr) = ("fine-tune".to_owned(), Some(1.0), Some(0.1));
        board.event(&Event::Progress { id: id.clone(), step, done: 4, total: 4, loss, lr });
        board.event(&Event::StageFinished { id, summary: String::new(), seconds: 0.0 });
        let folder = dir.path().join("tensorboard/thinet+scale-r0.5-seed-0");
        let file = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
        let text = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
        for tag in [
            "brain.Event:2",
            "_hparams_/session_start_info",
            "reconstruction-error after-cut/conv1",
            "loss/fine-tune",
            "learning rate/fine-tune",
        ] {
            assert!(text.contains(tag), "{tag}");
        }
        let metrics = std::fs::read_to_string(dir.path().join("metrics.csv")).unwrap();
        assert_eq!(
            metrics,
            "stage,label,metric,step,value\n\
             cell-1,thinet+scale r=0.5 seed 0,reconstruction-error after-cut/conv1,0,0.5\n\
             cell-1,thinet+scale r=0.5 seed 0,loss/fine-tune,4,1\n\
             cell-1,thinet+scale r=0.5 seed 0,learning rate/fine-tune,4,0.1\n"
        );
    }
}
