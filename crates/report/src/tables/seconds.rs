//! How long the stages of a study took: a file beside its table, as times are never the same twice and tables are.

use polars::frame::DataFrame;

use super::frame::{column, csv_bytes};
use super::{Attachment, TableError};

/// What follows the table's name and a dot.
pub(super) const SUFFIX: &str = "seconds.csv";

/// The time of one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageSeconds {
    /// Its id.
    pub stage: String,
    /// What it is, such as `ThiNet r=0.5 seed 0`.
    pub label: String,
    /// Wall time since it was last started.
    pub seconds: f64,
    /// The device it was made on.
    pub device: Option<String>,
    /// Name of the processor, on a GPU that of its host.
    pub processor: Option<String>,
}

/// `<table>.seconds.csv`: stage, label, seconds, device, processor.
pub fn seconds(stages: &[StageSeconds]) -> Result<Attachment, TableError> {
    let columns = vec![
        column("stage", stages, |s| s.stage.clone()),
        column("label", stages, |s| s.label.clone()),
        column("seconds", stages, |s| s.seconds),
        column("device", stages, |s| s.device.clone()),
        column("processor", stages, |s| s.processor.clone()),
    ];
    let mut frame = DataFrame::new(stages.len(), columns)?;
    let text = String::from_utf8_lossy(&csv_bytes(&mut frame)?).into_owned();
    Ok(Attachment { suffix: SUFFIX, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_told_with_their_machine() {
        let stage = StageSeconds {
            stage: "cell-1".to_owned(),
            label: "thinet, own r=0.5 seed 0".to_owned(),
            seconds: 1.5,
            device: Some("cpu".to_owned()),
            processor: None,
        };
        let file = seconds(&[stage]).unwrap();
        let expected = "stage,label,seconds,device,processor\ncell-1,\"thinet, own r=0.5 seed 0\",1.5,cpu,\n";
        assert_eq!((file.suffix, file.text.as_str()), ("seconds.csv", expected));
    }
}
