//! Records of a study: one per dense net and cell, with measurements as long-form rows.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thinet_graph::{ChannelSet, Counts};

/// The phase of a cell in which a value was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The net before pruning.
    Dense,
    /// After the cut, nothing refitted. Layer by layer this is the last layer's cut (earlier layers are already
    /// refitted and tuned); in one-shot mode all layers are cut at once.
    AfterCut,
    /// After the reconstruction (for `none` the same net as after the cut).
    AfterReconstruction,
    /// After the reconstruction, with the running statistics of batch normalisation estimated again; weights are untouched.
    AfterBatchNormEstimate,
    /// After fine-tuning.
    AfterFineTune,
}

impl Phase {
    /// The name used in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::AfterCut => "after-cut",
            Self::AfterReconstruction => "after-reconstruction",
            Self::AfterBatchNormEstimate => "after-batch-norm-estimate",
            Self::AfterFineTune => "after-fine-tune",
        }
    }
}

/// A measured quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Top-1 accuracy on the test images, per cent.
    Top1,
    /// Top-5 accuracy on the test images, per cent.
    Top5,
    /// Mean cross-entropy on the test images, nats.
    Loss,
    /// Mean training loss of the last epoch, nats.
    TrainLoss,
    /// ‖y − X_S·w‖₂ / ‖y‖₂ on the calibration sample (w = 1 after the cut).
    ReconstructionError,
}

impl Metric {
    /// The name used in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Top1 => "top1",
            Self::Top5 => "top5",
            Self::Loss => "loss",
            Self::TrainLoss => "train-loss",
            Self::ReconstructionError => "reconstruction-error",
        }
    }
}

/// The value of a metric of the whole net in a phase.
#[must_use]
pub fn find(rows: &[Row], phase: Phase, metric: Metric) -> Option<f64> {
    rows.iter()
        .find(|row| row.layer.is_empty() && row.phase == phase && row.metric == metric)
        .map(|row| row.value)
}

/// One measured value. `layer` is empty for values of the whole net.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The layer just pruned, or empty.
    pub layer: String,
    #[serde(rename = "stage")]
    pub phase: Phase,
    pub metric: Metric,
    /// In the unit of the metric. In JSON a number, or `"NaN"`, `"inf"` or `"-inf"`.
    #[serde(with = "crate::records::number")]
    pub value: f64,
}

/// Loss of one training: means over windows of equal length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LossCurve {
    /// Steps of the training.
    pub steps: u64,
    /// Steps of a window; the last one can be shorter.
    pub window: u64,
    /// Mean training loss of each window, nats. A training that diverged ends with the window before.
    pub losses: Vec<f64>,
}

impl LossCurve {
    /// Each loss with the number of steps done at the end of its window.
    pub fn points(&self) -> impl Iterator<Item = (u64, f64)> {
        self.losses.iter().zip(1..).map(|(&loss, number)| ((number * self.window).min(self.steps), loss))
    }
}

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Complete.
    Done,
    /// A loss, a weight or a test became NaN or infinite; later values do not exist.
    Diverged,
    /// Not stored.
    NotRun,
}

/// Why a dense net is unfit for pruning.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unfit {
    /// Its loss, a weight or its test became NaN or infinite.
    Diverged,
    /// It is near chance.
    NearChance {
        /// Its top-1 accuracy, per cent.
        top1: f64,
        /// Top-1 of guessing, per cent.
        chance: f64,
    },
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Diverged => f.write_str("its dense net diverged"),
            Self::NearChance { top1, chance } => {
                write!(f, "its dense net has {top1:.2} % top-1, chance is {chance:.2} %")
            }
        }
    }
}

/// Size of a net under both conventions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// The paper's convention.
    pub paper: Counts,
    /// All learnable parameters.
    pub all_parameters: Counts,
}

/// The dense net of one seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DenseRecord {
    pub id: String,
    pub seed: u64,
    pub status: Status,
    /// Why its seed is left out, if so: its cells count as not run, and means exclude its values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfit: Option<Unfit>,
    pub size: Size,
    pub rows: Vec<Row>,
    /// Loss of its training; absent without one and in records of old versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_curve: Option<LossCurve>,
    /// Number of test images; absent in records of old versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_images: Option<u64>,
}

/// The name in tables of the control that is trained from a random start, in place of a selector.
pub const FROM_SCRATCH: &str = "from-scratch";

/// One cell: a method at a keep rate with a seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CellRecord {
    pub id: String,
    /// The name of its variant; `None` in a study without variants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The method's label in tables.
    pub method: String,
    /// Registered selector.
    pub selector: String,
    /// Registered reconstruction.
    pub reconstruction: String,
    /// Fraction of channels kept in each pruned layer; with a global allocation that of all pruned layers together.
    pub keep_rate: f64,
    /// The target of FLOPs that was asked, a fraction of the dense net's; `None` for a listed keep rate. The keep rate meets it; with a
    /// global allocation the cell has widths of its own that meet it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flops_target: Option<f64>,
    pub seed: u64,
    pub status: Status,
    /// Size of the pruned net; `None` while a global allocation has not fixed its widths.
    pub size: Option<Size>,
    /// Channels kept over those of all pruned layers, with a global allocation that has fixed them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels_fraction: Option<f64>,
    pub rows: Vec<Row>,
    /// Loss of its last tuning, for the control of its training; absent without one and in records of old versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_curve: Option<LossCurve>,
    /// Batches of tuning after its cuts; `None` if the number of training images is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuning_steps: Option<u64>,
    /// Kept channels per pruned layer; empty if not run.
    pub kept: BTreeMap<String, ChannelSet>,
    /// Number of test images; absent in records of old versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_images: Option<u64>,
}

/// Order of calibration and cuts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Calibrate, cut, refit and tune one layer after the other (the paper's procedure).
    #[default]
    LayerByLayer,
    /// One calibration of the dense net serves all layers; then all cuts; then the long tuning.
    OneShot,
}

impl CellRecord {
    /// Whether a global allocation fixes its widths.
    #[must_use]
    pub fn is_allocated(&self) -> bool {
        self.channels_fraction.is_some() || self.size.is_none()
    }
}

impl Mode {
    /// The name in specs and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LayerByLayer => "layer-by-layer",
            Self::OneShot => "one-shot",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl VariantRecord {
    /// Whether the other variant has a sample of the same size and is otherwise the same.
    pub(crate) fn is_drawn_from_the_sample_of(&self, other: &Self) -> bool {
        let size = |variant: &Self| (variant.sample.images_per_class, variant.sample.positions_per_image);
        (size(self), &self.others) == (size(other), &other.others)
    }
}

/// The calibration sample of a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SampleRecord {
    pub images_per_class: u64,
    pub positions_per_image: u64,
    /// Which of the samples of this size.
    pub draw: u64,
}

/// A variant of a study: the study with other values of single keys.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct VariantRecord {
    /// Its name in tables.
    pub name: String,
    /// The keys that it overrides, such as `calibration.images-per-class = 3`.
    pub overrides: String,
    /// Those that are not of its calibration sample, in the same form; empty if they change nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub others: String,
    /// Its calibration sample.
    pub sample: SampleRecord,
    /// Its mode.
    pub mode: Mode,
    /// Keep rates at which nothing is cut.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uncut_rates: Vec<f64>,
}

/// All data of a study's tables.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StudyRecord {
    /// Name of the study.
    pub name: String,
    /// The table's file name without extension, such as `selectors-fashion-mnist`.
    pub table: String,
    /// Id of the run: a hash of all stage ids.
    pub run: String,
    /// Name of the dataset in tables, such as `CIFAR-10 (JPEG copy)`.
    pub dataset: String,
    /// Name of the net in tables, such as `vgg16-gap ×0.125, 1×32×32`.
    pub net: String,
    /// Whether trainings compute in bfloat16, not in float32.
    #[serde(rename = "bf16", skip_serializing_if = "std::ops::Not::not")]
    pub is_bf16: bool,
    /// Its mode; a variant can have another one.
    pub mode: Mode,
    /// Keep rates at which nothing is cut, so that the dense nets are the result; a variant can have others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uncut_rates: Vec<f64>,
    /// In the order of the spec; empty in a study without variants.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<VariantRecord>,
    /// One per seed, in seed order.
    pub dense: Vec<DenseRecord>,
    /// In order variant, method (as in the spec), keep rate (as in the spec), seed.
    pub cells: Vec<CellRecord>,
    /// Stages with unreadable records, and why; they count as not run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
}

impl StudyRecord {
    /// The variant of this name.
    #[must_use]
    pub fn variant(&self, name: Option<&str>) -> Option<&VariantRecord> {
        self.variants.iter().find(|variant| Some(variant.name.as_str()) == name)
    }

    /// The mode of a variant, or of a study without variants.
    #[must_use]
    pub fn mode_of(&self, variant: Option<&str>) -> Mode {
        self.variant(variant).map_or(self.mode, |variant| variant.mode)
    }

    /// Sentences about seeds and stages that the tables leave out.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        let seeds = self.dense.iter().filter_map(|dense| Some((dense.seed, dense.unfit?)));
        let seeds = seeds.map(|(seed, unfit)| format!("seed {seed} left out: {unfit}."));
        let stages = self.unreadable.iter().map(|stage| format!("counts as not run: {stage}."));
        seeds.chain(stages).collect()
    }
}
