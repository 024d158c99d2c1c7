//! Event files for TensorBoard: scalars, and the hyper-parameters by which TensorBoard filters and compares runs.
//!
//! A file is a sequence of records (length, its checksum, bytes, their checksum) that hold protocol buffers of the type `Event`. The
//! few fields that are needed are encoded by hand, which takes fewer lines than a protocol buffer compiler.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crc::{CRC_32_ISCSI, Crc};

use super::log::unix_seconds;
use crate::store::host_name;

/// A crash loses at most this much of the curves.
const FLUSH_EVERY: Duration = Duration::from_secs(5);

/// The value of a hyper-parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum HParam {
    Text(String),
    Number(f64),
}

/// An event file that is being written.
pub(super) struct EventFile {
    file: BufWriter<File>,
    last_flush: Option<Instant>,
}

impl EventFile {
    /// Creates an event file in a folder. A resumed stage gets another one, which TensorBoard joins with the first.
    pub(super) fn create(folder: &Path) -> std::io::Result<Self> {
        Ok(Self { file: start(folder)?, last_flush: None })
    }

    /// Adds a point of a curve.
    pub(super) fn scalar(&mut self, tag: &str, step: i64, value: f64) -> std::io::Result<()> {
        record(&mut self.file, &scalar_event(unix_seconds(), step, tag, value as f32))?;
        if self.last_flush.is_none_or(|last| last.elapsed() >= FLUSH_EVERY) {
            self.file.flush()?;
            self.last_flush = Some(Instant::now());
        }
        Ok(())
    }

    /// Adds the hyper-parameters of the stage.
    pub(super) fn session_start(&mut self, hparams: &BTreeMap<&'static str, HParam>) -> std::io::Result<()> {
        let now = unix_seconds();
        let tag = "_hparams_/session_start_info";
        record(&mut self.file, &hparams_event(now, tag, &bytes(3, &start_info(hparams, now))))
    }

    /// Adds that the stage is complete.
    pub(super) fn session_end(&mut self) -> std::io::Result<()> {
        let now = unix_seconds();
        let tag = "_hparams_/session_end_info";
        record(&mut self.file, &hparams_event(now, tag, &bytes(4, &end_info(now))))?;
        self.file.flush()
    }
}

/// Creates an event file and writes the record that each begins with.
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

/// `Event { wall_time: 1, summary: 5 { value: 1 { tag: 1, metadata: 9 { plugin_data: 1 { plugin_name: 1, content: 2 } } } } }` with
/// the content `HParamsPluginData`, whose `version`, 1, is 0 and left out.
fn hparams_event(wall_time: f64, tag: &str, content: &[u8]) -> Vec<u8> {
    let mut plugin = bytes(1, b"hparams");
    plugin.extend(bytes(2, content));
    let mut value = bytes(1, tag.as_bytes());
    value.extend(bytes(9, &bytes(1, &plugin)));
    let mut event = double(1, wall_time);
    event.extend(bytes(5, &bytes(1, &value)));
    event
}

/// `SessionStartInfo { hparams: 1 (map from text to google.protobuf.Value), start_time_secs: 5 }`.
fn start_info(hparams: &BTreeMap<&'static str, HParam>, now: f64) -> Vec<u8> {
    let mut info = Vec::new();
    for (name, value) in hparams {
        // `Value { number_value: 2, string_value: 3 }`.
        let value = match value {
            HParam::Number(number) => double(2, *number),
            HParam::Text(text) => bytes(3, text.as_bytes()),
        };
        let mut entry = bytes(1, name.as_bytes());
        entry.extend(bytes(2, &value));
        info.extend(bytes(1, &entry));
    }
    info.extend(double(5, now));
    info
}

/// `SessionEndInfo { status: 1, end_time_secs: 2 }`; status 1 is success.
fn end_info(now: f64) -> Vec<u8> {
    let mut info = vec![1 << 3, 1];
    info.extend(double(2, now));
    info
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

    /// A field of a protocol buffer: its number, and its bytes or the eight bytes of a number.
    fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(message: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let (byte, rest) = message.split_first().unwrap();
                *message = rest;
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return value;
                }
            }
        }
        let mut found = Vec::new();
        while !message.is_empty() {
            let key = varint(&mut message);
            let length = match key & 7 {
                0 => {
                    let value = varint(&mut message);
                    found.push((key >> 3, value.to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut message) as usize,
                5 => 4,
                wire => panic!("wire type {wire}"),
            };
            let (value, rest) = message.split_at(length);
            found.push((key >> 3, value.to_vec()));
            message = rest;
        }
        found
    }

    fn field(message: &[u8], number: u64) -> Vec<u8> {
        let found = fields(message).into_iter().find(|(of, _)| *of == number);
        found.unwrap_or_else(|| panic!("no field {number}")).1
    }

    /// The events of a file; compares both checksums of each record.
    fn events(mut file: &[u8]) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        while !file.is_empty() {
            let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            assert_eq!(file[8..12], masked(&file[..8]).to_le_bytes());
            let data = &file[12..12 + length];
            assert_eq!(file[12 + length..16 + length], masked(data).to_le_bytes());
            events.push(data.to_vec());
            file = &file[16 + length..];
        }
        events
    }

    /// Read by the field numbers of event.proto, summary.proto, plugins/hparams/plugin_data.proto and protobuf's struct.proto.
    #[test]
    fn hyper_parameters_are_where_tensorboard_looks_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(dir.path()).unwrap();
        let hparams =
            BTreeMap::from([("keep-rate", HParam::Number(0.5)), ("method", HParam::Text("thinet".into()))]);
        file.session_start(&hparams).unwrap();
        file.scalar("top1/dense", 0, 91.5).unwrap();
        file.session_end().unwrap();
        drop(file);
        let path = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let events = events(&std::fs::read(path).unwrap());
        assert_eq!(events.len(), 4);
        let content = |event: &[u8], tag: &str| {
            let value = field(&field(event, 5), 1);
            assert_eq!(field(&value, 1), tag.as_bytes());
            let plugin = field(&field(&value, 9), 1);
            assert_eq!(field(&plugin, 1), b"hparams");
            field(&plugin, 2)
        };
        let start = field(&content(&events[1], "_hparams_/session_start_info"), 3);
        let entries: Vec<_> = fields(&start).into_iter().filter(|(number, _)| *number == 1).collect();
        let pairs: Vec<_> = entries.iter().map(|(_, entry)| (field(entry, 1), field(entry, 2))).collect();
        assert_eq!(pairs.len(), 2);
        assert_eq!(pairs[0].0, b"keep-rate");
        assert_eq!(field(&pairs[0].1, 2), 0.5_f64.to_le_bytes());
        assert_eq!(
            (pairs[1].0.as_slice(), field(&pairs[1].1, 3).as_slice()),
            (&b"method"[..], &b"thinet"[..])
        );
        assert_eq!(field(&start, 5).len(), 8);
        let end = field(&content(&events[3], "_hparams_/session_end_info"), 4);
        assert_eq!(field(&end, 1), 1_u64.to_le_bytes());
        assert!(f64::from_le_bytes(field(&end, 2).try_into().unwrap()) > 1e9);
    }
}
