//! How images become a net's inputs, as stored in its weight file for other programs.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thinet_data::{ChannelOrder, DatasetSpec, Normalisation, Resize, ResizeRule, Transform};

use crate::error::HarnessError;
use crate::store::Store;
use crate::study::Plan;

/// The metadata entry of a weight file that holds a [`Preprocessing`] as JSON.
pub const PREPROCESSING: &str = "preprocessing";

/// The steps from a decoded image to an input, in this order: `resize`, cut or pad to `size`, `channels`, then
/// (value · range/255 − mean) / std in 32-bit floats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Preprocessing {
    /// The first step. Unknown in records of old versions for some datasets.
    pub resize: Resizing,
    /// Height and width of the inputs. A larger image is cut at its centre, a smaller one gets zeros on all sides.
    pub size: [usize; 2],
    /// Where zeros are added.
    pub padding: Padding,
    /// `grey`, or the order of the colours.
    pub channels: Channels,
    /// What the byte 255 becomes before the mean is subtracted.
    pub range: f32,
    /// Subtracted, one value for each channel in the order of `channels`.
    pub mean: Vec<f32>,
    /// Divided by.
    pub std: Vec<f32>,
}

/// The first step of the preprocessing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "kebab-case")]
pub enum Resizing {
    /// No resizing: all images of the dataset have one size.
    None,
    /// To `side`×`side`, whatever the aspect ratio, then the centre of `crop`×`crop`.
    Square {
        /// Height and width.
        side: usize,
        /// The filter, as Pillow's of this name.
        filter: Resize,
        /// Height and width that are cut out.
        crop: usize,
    },
    /// The shorter side to `side`, the aspect ratio kept, then the centre of `crop`×`crop`.
    ShorterSide {
        /// The shorter side.
        side: usize,
        /// The filter, as Pillow's of this name.
        filter: Resize,
        /// Height and width that are cut out.
        crop: usize,
    },
    /// Not recorded.
    Unknown,
}

/// Where zeros are added around an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// Before the normalisation: padded places hold (0 − mean) / std.
    ZerosBeforeNormalisation,
}

/// The channels of a net's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channels {
    /// One channel.
    Grey,
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

impl Preprocessing {
    /// The preprocessing of a study with this dataset, transform and `[channels, height, width]` of the net's input.
    #[must_use]
    pub fn of(dataset: &DatasetSpec, transform: &Transform, input: [usize; 3]) -> Self {
        let Normalisation { mean, std, order, range } = &transform.normalisation;
        Self {
            resize: Resizing::of(dataset),
            size: [input[1], input[2]],
            padding: Padding::ZerosBeforeNormalisation,
            channels: Channels::of(input[0], *order),
            range: *range,
            mean: mean.clone(),
            std: std.clone(),
        }
    }

    /// The metadata entry of a plan's weight files. Their ids cover everything in it.
    pub(crate) fn entry(plan: &Plan) -> Result<(String, String), HarnessError> {
        let found = Self::of(&plan.spec.dataset, &plan.transform, plan.graph.input_shape());
        Ok((PREPROCESSING.to_owned(), serde_json::to_string(&found).map_err(HarnessError::Json)?))
    }

    /// The preprocessing of a stored stage: from its record, or that of its dense net; `None` if there is no such record or it lacks the
    /// entry.
    ///
    /// # Errors
    /// If a record is damaged.
    pub fn of_stage(store: &Store, id: &str) -> Result<Option<Self>, HarnessError> {
        let Some(stage) = store.find(id)? else { return Ok(None) };
        if let Some(found) = Self::from_inputs(&stage.inputs) {
            return Ok(Some(found));
        }
        let Some(dense) = stage.inputs.get("dense").and_then(Value::as_str) else { return Ok(None) };
        Ok(store.find(dense)?.and_then(|stage| Self::from_inputs(&stage.inputs)))
    }

    /// Reads the preprocessing from the id inputs of a dense net's record.
    fn from_inputs(inputs: &Value) -> Option<Self> {
        let input = inputs.get("input")?;
        let floats = |key: &str| -> Option<Vec<f32>> {
            input.get(key)?.as_array()?.iter().map(|value| value.as_f64().map(|value| value as f32)).collect()
        };
        let shape: [usize; 3] = serde_json::from_value(input.get("shape")?.clone()).ok()?;
        // Omitted where they have their old meaning.
        let order = match input.get("order") {
            None => ChannelOrder::Rgb,
            Some(order) => serde_json::from_value(order.clone()).ok()?,
        };
        let range = input.get("range").map_or(Some(1.0), Value::as_f64)? as f32;
        Some(Self {
            resize: Resizing::Unknown,
            size: [shape[1], shape[2]],
            padding: Padding::ZerosBeforeNormalisation,
            channels: Channels::of(shape[0], order),
            range,
            mean: floats("mean")?,
            std: floats("std")?,
        })
    }

    /// A description in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let resize = match &self.resize {
            Resizing::None => String::new(),
            Resizing::Square { side, filter, crop } => {
                format!("resized to {side}×{side} ({filter:?}), the centre {crop}×{crop} cut out, ")
                    .to_lowercase()
            }
            Resizing::ShorterSide { side, filter, crop } => {
                format!("shorter side resized to {side} ({filter:?}), the centre {crop}×{crop} cut out, ")
                    .to_lowercase()
            }
            Resizing::Unknown => "resizing unknown, ".to_owned(),
        };
        let [height, width] = self.size;
        let channels = format!("{:?}", self.channels).to_lowercase();
        let Self { range, mean, std, .. } = self;
        format!(
            "{channels} images, {resize}cut or padded with zeros to {height}×{width} before normalisation, bytes · {range}/255, \
             less {mean:?}, divided by {std:?}"
        )
    }
}

impl Resizing {
    fn of(dataset: &DatasetSpec) -> Self {
        match dataset.resized() {
            ResizeRule::No => Self::None,
            ResizeRule::Square { side, filter, crop } => Self::Square { side, filter, crop },
            ResizeRule::ShorterSide { side, filter, crop } => Self::ShorterSide { side, filter, crop },
        }
    }
}

impl Channels {
    fn of(channels: usize, order: ChannelOrder) -> Self {
        match (channels, order) {
            (1, _) => Self::Grey,
            (_, ChannelOrder::Rgb) => Self::Rgb,
            (_, ChannelOrder::Bgr) => Self::Bgr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use thinet_data::{Augment, ImagenetSpec, Protocol};

    #[test]
    fn a_study_has_every_step_and_its_old_records_all_but_resizing() {
        let dataset = DatasetSpec::Imagenet(ImagenetSpec::new(Protocol::CaffeShort));
        let normalisation = dataset.normalisation();
        let transform = Transform { pad: 0, crop: None, normalisation, augment: Augment::default() };
        let found = Preprocessing::of(&dataset, &transform, [3, 224, 224]);
        let expected = json!({
            "resize": { "to": "shorter-side", "side": 256, "filter": "bicubic", "crop": 224 },
            "size": [224, 224], "padding": "zeros-before-normalisation", "channels": "bgr",
            "range": 255.0, "mean": [104.0, 117.0, 123.0], "std": [1.0, 1.0, 1.0],
        });
        assert_eq!(serde_json::to_value(&found).unwrap(), expected);
        assert_eq!(
            found.line(),
            "bgr images, shorter side resized to 256 (bicubic), the centre 224×224 cut out, cut or padded with zeros to \
             224×224 before normalisation, bytes · 255/255, less [104.0, 117.0, 123.0], divided by [1.0, 1.0, 1.0]"
        );

        let old = json!({ "input": {
            "shape": [3, 224, 224], "mean": [104.0, 117.0, 123.0], "std": [1.0, 1.0, 1.0], "order": "bgr", "range": 255.0,
        }});
        let of_record = Preprocessing::from_inputs(&old).unwrap();
        assert_eq!(of_record, Preprocessing { resize: Resizing::Unknown, ..found });

        let grey = json!({ "input": { "shape": [1, 32, 32], "mean": [0.286], "std": [0.353] } });
        let grey = Preprocessing::from_inputs(&grey).unwrap();
        assert_eq!((grey.channels, grey.range, grey.mean), (Channels::Grey, 1.0, vec![0.286]));
        assert_eq!(Preprocessing::from_inputs(&json!({ "dense": "dense-0" })), None);
    }
}
