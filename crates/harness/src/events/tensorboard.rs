//! Event files for TensorBoard: loss, learning rate, accuracy and reconstruction error of each stage.
//!
//! A file is a sequence of records (length, its checksum, bytes, their checksum) that hold protocol buffers of the type `Event`. The
//! four fields that a scalar needs are encoded by hand, which takes fewer lines than a protocol buffer compiler.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crc::{CRC_32_ISCSI, Crc};
use thinet_report::records::Row;

use super::event::{Event, Reporter};
use super::log::unix_seconds;
use crate::store::host_name;

/// Minimum time between two points of a curve.
const POINT_EVERY: Duration = Duration::from_millis(250);
/// A crash loses at most this much of the curves.
const FLUSH_EVERY: Duration = Duration::from_secs(5);

/// Forwards events and writes the curves of one stage to a folder named after it.
pub(crate) struct TensorBoard<'a> {
    folder: PathBuf,
    inner: &'a dyn Reporter,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: Option<BufWriter<File>>,
    last_point: BTreeMap<String, Instant>,
    last_flush: Option<Instant>,
    /// Number of rows by tag: the position of the next row on the horizontal axis.
    measured: BTreeMap<String, i64>,
}

impl<'a> TensorBoard<'a> {
    /// The stage's folder is created when the stage starts.
    pub(crate) fn new(folder: &Path, inner: &'a dyn Reporter) -> Self {
        Self { folder: folder.to_owned(), inner, state: Mutex::default() }
    }

    /// Writes what the event adds to the curves.
    fn draw(&self, event: &Event) -> std::io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::StageStarted { label, .. } => {
                state.file = Some(start(&self.folder.join(folder_name(label)))?);
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
            Event::StageFinished { .. } => state.file = None,
            _ => {}
        }
        Ok(())
    }
}

impl Reporter for TensorBoard<'_> {
    fn event(&self, event: &Event) {
        self.inner.event(event);
        if let Err(error) = self.draw(event) {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            // A failed write must not end the run. It is reported once: without a file no more curves are written.
            state.file = None;
            let text = format!("no curves for TensorBoard: {}: {error}", self.folder.display());
            self.inner.event(&Event::Note { id: String::new(), text });
        }
    }
}

impl State {
    fn scalar(&mut self, tag: &str, step: i64, value: f64) -> std::io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        record(file, &scalar_event(unix_seconds(), step, tag, value as f32))?;
        if self.last_flush.is_none_or(|last| last.elapsed() >= FLUSH_EVERY) {
            file.flush()?;
            self.last_flush = Some(Instant::now());
        }
        Ok(())
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

/// Creates an event file. A resumed stage gets another one, which TensorBoard joins with the first.
fn start(folder: &Path) -> std::io::Result<BufWriter<File>> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    std::fs::create_dir_all(folder)?;
    let file = loop {
        let (serial, seconds) = (SERIAL.fetch_add(1, Ordering::Relaxed), unix_seconds() as u64);
        let name =
            format!("events.out.tfevents.{seconds:010}.{}.{}.{serial}", host_name(), std::process::id());
        // Containers can share host name and process id.
        match File::create_new(folder.join(name)) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            created => break created?,
        }
    };
    let mut file = BufWriter::new(file);
    let mut version = Vec::new();
    version.extend(double(1, unix_seconds()));
    version.extend(bytes(3, b"brain.Event:2"));
    record(&mut file, &version)?;
    Ok(file)
}

/// `Event { wall_time: 1, step: 2, summary: 5 { value: 1 { tag: 1, simple_value: 2 } } }`.
fn scalar_event(wall_time: f64, step: i64, tag: &str, value: f32) -> Vec<u8> {
    let mut of_value = bytes(1, tag.as_bytes());
    of_value.push(2 << 3 | 5);
    of_value.extend(value.to_le_bytes());
    let mut event = double(1, wall_time);
    event.push(2 << 3);
    event.extend(varint(step as u64));
    event.extend(bytes(5, &bytes(1, &of_value)));
    event
}

fn double(field: u8, value: f64) -> Vec<u8> {
    let mut out = vec![field << 3 | 1];
    out.extend(value.to_le_bytes());
    out
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    out.extend(varint(value.len() as u64));
    out.extend(value);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn record(file: &mut impl Write, data: &[u8]) -> std::io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    file.write_all(&length)?;
    file.write_all(&masked(&length).to_le_bytes())?;
    file.write_all(data)?;
    file.write_all(&masked(data).to_le_bytes())
}

/// The masked CRC-32C of the record format.
fn masked(data: &[u8]) -> u32 {
    const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    CRC32C.checksum(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Silent;
    use thinet_report::records::{Metric, Phase};

    /// The record that the `tensorboard` package 2.21 writes for
    /// `Event(wall_time=1.5, step=300, summary=Summary(value=[Summary.Value(tag="loss/train", simple_value=0.25)]))`.
    #[test]
    fn a_scalar_is_written_as_tensorboard_itself_writes_it() {
        let mut out = Vec::new();
        record(&mut out, &scalar_event(1.5, 300, "loss/train", 0.25)).unwrap();
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "2100000000000000017becf609000000000000f83f10ac022a130a110a0a6c6f73732f747261696e150000803e6c5611a4"
        );
    }

    #[test]
    fn a_stage_writes_its_curves_to_a_folder_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let board = TensorBoard::new(dir.path(), &Silent);
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
        let folder = dir.path().join("thinet+scale-r0.5-seed-0");
        let file = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
        let text = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
        for tag in [
            "brain.Event:2",
            "reconstruction-error after-cut/conv1",
            "loss/fine-tune",
            "learning rate/fine-tune",
        ] {
            assert!(text.contains(tag), "{tag}");
        }
    }
}
