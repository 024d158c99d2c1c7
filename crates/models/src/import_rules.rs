//! The rules for importing a foreign weight file, as written in a spec.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::weights::layer_of;

/// How a file's tensors become a net's. Nothing is inferred beyond what the names say; nothing is adapted silently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImportRules {
    /// The naming scheme and conventions of the file. Default: inferred from the names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// The element type that the file must have. All but `f32` are turned into 32-bit floats. Default: f32.
    #[serde(default, skip_serializing_if = "is_f32")]
    pub dtype: FileType,
    /// Layers that start at random instead of from the file, such as a new classifier; `[dense.train]` trains them. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fresh: Vec<String>,
    /// Prefixes of names in the file to ignore, such as `classifier.`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Prefix of the wanted names, such as `backbone.`; names without it are not used. Default: the prefixes of
    /// `DataParallel`, `torch.compile` and Lightning are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The entry of a checkpoint that holds the weights, such as `state_dict_ema`; dots lead into dictionaries of
    /// dictionaries. Default: the names that training scripts use are looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl ImportRules {
    /// Whether a tensor of the net starts at random instead of coming from the file.
    #[must_use]
    pub fn is_fresh(&self, tensor: &str) -> bool {
        self.fresh.iter().any(|layer| layer == layer_of(tensor))
    }
}

/// The naming scheme and conventions of a weight file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// This project's names.
    Own,
    /// torchvision's: `features.N`, `classifier.N`; ResNet-50 strides in the 3×3 convolution.
    Torchvision,
    /// timm's: `features.N`, `pre_logits.fc1` as a convolution, `head.fc`; ResNet-50 as torchvision's.
    Timm,
    /// torchvision's names with the weights of the Caffe nets: ResNet-50 strides in the first 1×1 convolution.
    Caffe,
}

/// The element type of a file's tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileType {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
    /// 64-bit floats.
    F64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_f32(dtype: &FileType) -> bool {
    *dtype == FileType::F32
}
