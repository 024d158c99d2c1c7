//! The curves of a run as one CSV file: `stage,label,metric,step,value`, one line a value.
//!
//! Metrics have the names of TensorBoard's curves, such as `loss/train` or `top1/after-fine-tune`. Steps are batches for losses and
//! learning rates, and count the measurements of a value otherwise. A stage that was resumed repeats the steps since its checkpoint: the
//! last line of a stage, metric and step holds.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

const HEADER: &[u8] = b"stage,label,metric,step,value\n";

/// The file, to which the processes of a run append lines.
pub(super) struct MetricsFile {
    file: File,
    /// `stage,label,` of each line.
    start: String,
}

impl MetricsFile {
    /// Opens the file for the lines of a stage; the process that creates it writes the header.
    pub(super) fn open(path: &Path, stage: &str, label: &str) -> std::io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        match File::options().append(true).create_new(true).open(path) {
            Ok(mut file) => file.write_all(HEADER)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let file = File::options().append(true).open(path)?;
        Ok(Self { file, start: format!("{},{},", quoted(stage), quoted(label)) })
    }

    /// Appends a value, in one call, so that lines of several processes do not interleave.
    pub(super) fn add(&mut self, metric: &str, step: i64, value: f64) -> std::io::Result<()> {
        self.file.write_all(format!("{}{},{step},{value}\n", self.start, quoted(metric)).as_bytes())
    }
}

/// A field of a CSV file (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_share_one_header_and_labels_are_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/metrics.csv");
        let mut first = MetricsFile::open(&path, "dense-1", "dense net, seed 0").unwrap();
        let mut second = MetricsFile::open(&path, "cell-1", "my \"best\" r=0.5 seed 0").unwrap();
        second.add("loss/tune", 3, 0.25).unwrap();
        first.add("loss/train", 1, f64::NAN).unwrap();
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            "stage,label,metric,step,value\n\
             cell-1,\"my \"\"best\"\" r=0.5 seed 0\",loss/tune,3,0.25\n\
             dense-1,\"dense net, seed 0\",loss/train,1,NaN\n"
        );
    }
}
