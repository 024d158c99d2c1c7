//! Wall times of a study's stages: in a file beside its table, as times differ between runs and tables do not.

use polars::frame::DataFrame;

use super::frame::{column, csv_bytes};
use super::{Attachment, TableError};

/// Suffix of the file after the table's name and a dot.
pub(super) const SUFFIX: &str = "seconds.csv";

/// The wall time of one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageSeconds {
    pub stage: String,
    /// Its label, such as `ThiNet r=0.5 seed 0`.
    pub label: String,
    /// Wall time since its last start.
    pub seconds: f64,
    /// The device that computed it.
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
    fn stages_are_listed_with_their_machine() {
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
