//! The spec of a study: a TOML file with all defaults in one place. Unknown keys are an error.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thinet_data::{ChannelOrder, DatasetSpec};
use thinet_models::{ImportRules, Precision};
use thinet_nets::NetSpec;
use thinet_report::records::Mode;
use thinet_sampling::SamplingSpec;
use thinet_selectors::Normalisation;

use super::allocation::Allocation;
use super::recipe::Recipe;
use super::selector_spec::SelectorSpec;
use super::variants::VariantSpec;
use super::{spec_text, stored_run};
use crate::error::SpecError;

/// The spec of one study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Spec {
    /// Name of the study: lower-case letters, digits and dashes. Part of the run folder's name. Required.
    pub name: String,
    /// Name of its table, without extension: lower-case letters, digits and dashes. Default: the study's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Number of root seeds: 0, 1, … `seeds` − 1; each trains a dense net of its own. 1 to 1000. Default: 1.
    #[serde(default = "one")]
    pub seeds: u64,
    /// Where the images come from. Required.
    pub dataset: DatasetSpec,
    /// How pixels become inputs. Default: as is usual for the dataset.
    #[serde(default)]
    pub input: InputSpec,
    /// The network. Required.
    pub net: NetSpec,
    /// Settings that can change the bits of a result. Default: one thread, f32.
    #[serde(default)]
    pub compute: ComputeSpec,
    /// The net before pruning: trained here, read from a file, or both. Required.
    pub dense: DenseSpec,
    /// What is pruned, and how the net is tuned afterwards. Required.
    pub prune: PruneSpec,
    /// How many training images and positions a selector sees. Default: 10 images of every class, 10 positions in each.
    #[serde(default)]
    pub calibration: SamplingSpec,
    /// The methods that are compared, one `[[methods]]` table each. Required, at least one.
    pub methods: Vec<MethodSpec>,
    /// Recipe of the control: at each keep rate a net of the same widths, trained from a random start. Default: no
    /// control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_scratch: Option<Recipe>,
    /// Table that compares this study and others with the paper's rows, such as `imagenet-vgg16`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paper_table: Option<String>,
    /// Variants with other values of single keys, one `[[variants]]` table each. Default: the spec itself is the only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<VariantSpec>,
}

/// How pixels become inputs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InputSpec {
    /// Side of the square input in pixels, 1 to 4096. Larger than the images: zeros are padded around. Default: the images' own side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// Mean of each channel, in their order and on the scale of `range`. Default: the dataset's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of each channel, likewise. Default: the dataset's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f32>>,
    /// Which channel comes first: `rgb` or `bgr` (Caffe's nets). Default: the dataset's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<ChannelOrder>,
    /// What the brightest value becomes before the mean is subtracted: 1 or 255. Default: the dataset's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<f32>,
}

/// Settings that can change the bits of a result. Part of every stage's id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ComputeSpec {
    /// libtorch threads per process, 1 to 1024. libtorch's sums depend on it, so it never follows from the machine. Default: 1.
    #[serde(default = "one_thread")]
    pub threads: usize,
    /// Whether activations are stored with the channel axis last: faster for narrow nets on a CPU, and on a GPU in bf16.
    /// Default: false.
    #[serde(default)]
    pub channels_last: bool,
    /// `f32`, or `bf16`: training computes convolutions and linear layers in bfloat16 where libtorch's autocast says so,
    /// about ten times slower on a CPU without AVX-512. Calibration and testing are always in f32. Default: f32.
    #[serde(default, skip_serializing_if = "is_default")]
    pub precision: Precision,
    /// Whether training on a GPU may round the factors of f32 products to TF32 (19 bits). Default: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tf32: bool,
    /// Whether libtorch must use algorithms that give the same bits every time; an operation without one is an error.
    /// Default: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deterministic: bool,
}

impl Default for ComputeSpec {
    fn default() -> Self {
        Self {
            threads: one_thread(),
            channels_last: false,
            precision: Precision::F32,
            tf32: false,
            deterministic: false,
        }
    }
}

/// Omits a key at its default from what is hashed and written, so that results stored before the key existed keep their ids.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The dense net: trained here, read from a file, or read from a file and then tuned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DenseSpec {
    /// Train it here with this recipe; from `weights`, if there are any. Default: not trained here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<Recipe>,
    /// Read it from this file (relative to the spec file): safetensors, or a PyTorch checkpoint. Default: a
    /// random start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// How the file's tensors are mapped to this net's. Default: by the names in the file.
    #[serde(default, skip_serializing_if = "is_default")]
    pub import: ImportRules,
    /// Whether a net near chance is pruned anyway. Changes no stored value, so it is part of no id. Default: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_chance: bool,
}

/// What is pruned and how the net is tuned afterwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(extend("anyOf" = [{ "required": ["keep-rates"] }, { "required": ["flops"] }]))]
pub struct PruneSpec {
    /// Channel groups to prune, in this order, by name: a layer, or the first addition of a residual stage; or `"all"` for every
    /// convolution that one layer alone reads, which an empty list stands for once it is read. Default: "all".
    #[serde(default, with = "crate::study::layer_list")]
    #[schemars(schema_with = "super::schema::layers")]
    pub layers: Vec<String>,
    /// Fractions of channels that stay in each pruned layer, in (0, 1]: floor(C·r) channels are kept. At 1 nothing is cut: the
    /// dense net itself is reported, once and not tuned any further. At least one is required here or in `flops`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_rates: Vec<f64>,
    /// Targets of the whole net's FLOPs as fractions of the dense net's, in (0, 1), counted as tables count them. Each stands for
    /// the largest keep rate, the same for all layers without one in `layer-rates`, at which the net has no more FLOPs; of the
    /// rates with the same widths it is the one with the fewest decimals. With a global allocation each method removes as few channels
    /// as meet it. May stand beside `keep-rates`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flops: Vec<f64>,
    /// Whether each layer is calibrated on the net as pruned and tuned so far, or all on the dense net. Default: layer-by-layer.
    #[serde(default)]
    pub mode: Mode,
    /// How a keep rate is shared out. `uniform`: every layer keeps that share of its channels. `global` (one-shot only): the channels of
    /// all layers are ranked together by their normalised scores, a keep rate is a share of all their channels, and each layer keeps
    /// at least a tenth; widths are known after the calibration, and those of methods differ. Default: uniform.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allocation: Allocation,
    /// By what the scores of a layer are divided before layers are compared: `mean` or `max` of their absolute values, `l2` (their
    /// Euclidean norm), or `none` (global allocation only). Default: mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalisation: Option<Normalisation>,
    /// Keep rates of single layers by name, in (0, 1], in place of those of `keep-rates` and `flops`. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub layer_rates: BTreeMap<String, f64>,
    /// Short tuning after each layer but the last (layer by layer only). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_layer: Option<Recipe>,
    /// Layers with another tuning after them, or none; one `[[prune.exceptions]]` table each. Default: no exceptions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<Exception>,
    /// Long tuning after the last layer. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_last: Option<Recipe>,
    /// Whether the cut and refitted net is also tested with the running statistics of batch normalisation estimated again on the
    /// calibration images. The test is of a copy: tuning starts from the net with the dense net's statistics either way.
    /// Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimate_batch_norm: bool,
}

impl PruneSpec {
    /// The tuning after a layer; `last` is whether it is the last one.
    #[must_use]
    pub fn recipe_after(&self, layer: &str, last: bool) -> Option<&Recipe> {
        if last {
            return self.after_last.as_ref();
        }
        let exception = self.exceptions.iter().find(|e| e.layers.iter().any(|name| name == layer));
        exception.map_or(self.after_layer.as_ref(), |e| e.recipe.as_ref())
    }

    /// Whether the channels of all layers are ranked together.
    #[must_use]
    pub fn is_global(&self) -> bool {
        self.allocation == Allocation::Global
    }

    /// Whether a cell of this rate would keep every channel of these layers.
    #[must_use]
    pub fn is_uncut(&self, layers: &[String], rate: f64) -> bool {
        layers.iter().all(|layer| self.rate_of(layer, rate) == 1.0)
    }

    /// The keep rate of a layer in a cell of this rate.
    #[must_use]
    pub fn rate_of(&self, layer: &str, rate: f64) -> f64 {
        self.layer_rates.get(layer).copied().unwrap_or(rate)
    }
}

/// Layers with a tuning of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Exception {
    /// The layers, by name. Required.
    pub layers: Vec<String>,
    /// The tuning after each of them. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
}

/// A method: a selector with a reconstruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MethodSpec {
    /// A registered selector (`thinet list selectors` describes them), or a program in its place. Required.
    pub selector: SelectorSpec,
    /// A registered reconstruction; `thinet list reconstructions` describes them. Default: none.
    #[serde(default = "no_reconstruction")]
    pub reconstruction: String,
    /// The name in tables. Default: the selector, or the name of its program's file, with ` + <reconstruction>` if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl MethodSpec {
    /// The name in tables.
    #[must_use]
    pub fn label(&self) -> String {
        match (&self.label, self.reconstruction.as_str()) {
            (Some(label), _) => label.clone(),
            (None, "none") => self.selector.short_name(),
            (None, reconstruction) => format!("{} + {reconstruction}", self.selector.short_name()),
        }
    }
}

fn one() -> u64 {
    1
}
fn one_thread() -> usize {
    1
}
fn no_reconstruction() -> String {
    "none".into()
}

impl Spec {
    /// Whether all layers are selected from one calibration of the dense net.
    #[must_use]
    pub fn is_one_shot(&self) -> bool {
        self.prune.mode == Mode::OneShot
    }

    /// Reads a spec file, or the spec in the folder of a stored run. Checks its form only; [`crate::study::Plan::new`] checks its values.
    ///
    /// # Errors
    /// If the file cannot be read or is not a spec; the message names file, line, key and the allowed values. If the spec of a run has
    /// changed since it was written.
    pub fn read(path: &Path) -> Result<Self, SpecError> {
        if stored_run::is_run(path) {
            return stored_run::read(path);
        }
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound | ErrorKind::IsADirectory => spec_text::not_there(path),
            _ => SpecError::Unreadable { path: path.to_owned(), source },
        })?;
        Self::parse(&text, path)
    }

    /// Parses the text of a spec; `path` is used in errors only.
    ///
    /// # Errors
    /// As [`Spec::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, SpecError> {
        spec_text::parse(text, path)
    }

    /// The spec as TOML with every default filled in.
    ///
    /// # Errors
    /// If a value cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, SpecError> {
        toml::to_string(self).map_err(|e| SpecError::Unwritable(e.to_string()))
    }

    /// The table's name, without extension.
    #[must_use]
    pub fn table_name(&self) -> &str {
        self.table.as_deref().unwrap_or(&self.name)
    }
}

/// A spec with no more than the required keys.
#[cfg(test)]
pub(crate) const MINIMAL: &str = r#"
name = "x"
dataset = { kind = "fashion-mnist" }
net = { arch = "tiny" }
dense.train = { epochs = 1, lr = 0.1 }
prune.keep-rates = [0.5]
methods = [{ selector = "random" }]
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        Spec::parse(text, Path::new("x.toml")).unwrap_err().to_string()
    }

    #[test]
    fn a_minimal_spec_gets_the_papers_defaults_and_survives_a_round_trip() {
        let spec = Spec::parse(MINIMAL, Path::new("x.toml")).unwrap();
        assert_eq!(spec.calibration, SamplingSpec { images_per_class: 10, positions_per_image: 10, draw: 0 });
        assert_eq!(spec.compute, ComputeSpec { threads: 1, ..ComputeSpec::default() });
        assert_eq!((spec.seeds, spec.prune.mode), (1, Mode::LayerByLayer));
        let recipe = spec.dense.train.clone().unwrap();
        assert_eq!((recipe.momentum, recipe.weight_decay, recipe.batch), (0.9, 5e-4, 128));
        let again = Spec::parse(&spec.to_toml().unwrap(), Path::new("resolved.toml")).unwrap();
        assert_eq!(again, spec);
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line_and_the_key_that_was_meant() {
        let error = error_of(&MINIMAL.replace("epochs", "epoch"));
        assert!(error.starts_with("x.toml:5: unknown field `epoch`"), "{error}");
        assert!(error.ends_with("did you mean `epochs`?"), "{error}");
        let error = error_of(&format!("{MINIMAL}\n[calibration]\nimages-per-clas = 3\n"));
        assert!(error.contains("did you mean `images-per-class`?"), "{error}");
    }

    #[test]
    fn stray_keys_are_refused_in_every_table() {
        for (table, key) in [
            ("dataset = { kind = \"fashion-mnist\"", "dataset = { kind = \"fashion-mnist\", stray = 1"),
            ("net = { arch = \"tiny\"", "net = { arch = \"tiny\", stray = 1"),
            ("lr = 0.1", "lr = 0.1, stray = 1"),
            ("lr = 0.1", "lr = 0.1, augment = { stray = 1 }"),
            ("lr = 0.1", "lr = 0.1, schedule = { kind = \"constant\", stray = 1 }"),
            ("prune.keep-rates", "prune.stray = 1\nprune.keep-rates"),
            ("selector = \"random\"", "selector = \"random\", stray = 1"),
            ("name = ", "stray = 1\nname = "),
            ("name = ", "input = { stray = 1 }\nname = "),
            ("name = ", "compute = { stray = 1 }\nname = "),
            ("name = ", "calibration = { stray = 1 }\nname = "),
        ] {
            let text = MINIMAL.replacen(table, key, 1);
            assert_ne!(text, MINIMAL);
            let error = error_of(&text);
            assert!(error.contains("unknown field `stray`"), "{key}: {error}");
        }
    }

    #[test]
    fn unknown_kinds_list_what_is_allowed() {
        let error = error_of(&MINIMAL.replace("fashion-mnist", "fashon-mnist"));
        assert!(error.contains("cifar10") && error.contains("did you mean `fashion-mnist`?"), "{error}");
        let error = error_of(&MINIMAL.replace("\"tiny\"", "\"vgg\""));
        assert!(error.contains("resnet50"), "{error}");
    }

    #[test]
    fn all_layers_have_a_name_and_an_empty_list_is_refused() {
        let plain = Spec::parse(MINIMAL, Path::new("x.toml")).unwrap();
        let with =
            |layers: &str| MINIMAL.replace("prune.keep", &format!("prune.layers = {layers}\nprune.keep"));
        assert_eq!(Spec::parse(&with("\"all\""), Path::new("x.toml")).unwrap(), plain);
        assert!(plain.to_toml().unwrap().contains("layers = \"all\""));
        let error = error_of(&with("[]"));
        assert!(
            error.contains("prune.layers: an empty list prunes nothing; leave the key out or write"),
            "{error}"
        );
        let error = error_of(&with("\"none\""));
        assert!(
            error.contains("prune.layers: expected a list of layers, or \"all\", found the text"),
            "{error}"
        );
    }

    #[test]
    fn huge_lengths_saturate() {
        let mut recipe = Spec::parse(MINIMAL, Path::new("x.toml")).unwrap().dense.train.unwrap();
        recipe.epochs = Some(1 << 62);
        assert_eq!(recipe.total_steps(128 * 8), usize::MAX);
    }

    #[test]
    fn a_table_is_named_after_its_study_unless_it_has_a_name() {
        let spec = Spec::parse(MINIMAL, Path::new("x.toml")).unwrap();
        assert_eq!(spec.table_name(), "x");
        let named = Spec { table: Some("y".to_owned()), ..spec };
        assert_eq!(named.table_name(), "y");
    }

    #[test]
    fn epochs_count_whole_batches_only() {
        let mut recipe = Spec::parse(MINIMAL, Path::new("x.toml")).unwrap().dense.train.unwrap();
        recipe.epochs = Some(3);
        assert_eq!(recipe.total_steps(300), 6);
        (recipe.epochs, recipe.steps) = (None, Some(7));
        assert_eq!(recipe.total_steps(300), 7);
    }
}
