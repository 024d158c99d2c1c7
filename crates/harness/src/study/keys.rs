//! Every key of a spec with type, default and description, as `thinet list keys` prints them. A test compares the list with the
//! types that read specs.

use serde::Serialize;
use thinet_data::{DatasetSpec, Key};

/// The keys of one table of a spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ListedTable {
    /// The dotted name of the table; empty for the top level.
    pub table: &'static str,
    /// Where else, or for which kind, these keys apply.
    pub about: String,
    /// The keys.
    pub keys: Vec<Key>,
}

struct KeyTable {
    table: &'static str,
    about: &'static str,
    keys: &'static [Key],
}

const fn key(name: &'static str, kind: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, kind, default, about }
}

const REQUIRED: &str = "required";
/// Stands for the keys that a variant can override.
const ANY_KEY: &str = "\"table.key\"";
const KIND: Key = key("kind", "text", REQUIRED, "which dataset, see `thinet list datasets`");

/// Every key, table by table. The keys of datasets come from the datasets; kinds with the same keys share a table.
#[must_use]
pub fn tables() -> Vec<ListedTable> {
    let mut kinds: Vec<(Vec<String>, &[Key])> = Vec::new();
    for kind in DatasetSpec::kinds() {
        let name = format!("{:?}", kind.name);
        match kinds.last_mut() {
            Some((names, keys)) if *keys == kind.keys => names.push(name),
            _ => kinds.push((vec![name], kind.keys)),
        }
    }
    let datasets = kinds.into_iter().map(|(mut names, keys)| {
        let last = names.pop().unwrap_or_default();
        let names = if names.is_empty() { last } else { format!("{} or {last}", names.join(", ")) };
        let keys = [&[KIND], keys].concat();
        ListedTable { table: "dataset", about: format!("kind = {names}"), keys }
    });
    let others = KEYS.iter().map(|&KeyTable { table, about, keys }| ListedTable {
        table,
        about: about.to_owned(),
        keys: keys.to_vec(),
    });
    let mut tables: Vec<ListedTable> = others.collect();
    // After the top level.
    tables.splice(1..1, datasets);
    tables
}

/// Every key except those of datasets.
const KEYS: &[KeyTable] = &[
    KeyTable {
        table: "",
        about: "at the top of the file",
        keys: &[
            key("name", "text", REQUIRED, "name of the study: lower-case letters, digits and dashes"),
            key("table", "text", "as name", "name of its table"),
            key("paper-table", "text", "none", "table that compares it and others with the paper's rows"),
            key("seeds", "count", "1", "root seeds 0, 1, …; each trains a dense net of its own"),
            key("dataset", "table", REQUIRED, "where the images come from"),
            key("input", "table", "the dataset's", "how pixels become inputs"),
            key("net", "table", REQUIRED, "the network"),
            key("compute", "table", "see below", "settings that can change the bits of a result"),
            key("dense", "table", REQUIRED, "the net before pruning: [dense.train], weights, or both"),
            key("prune", "table", REQUIRED, "what is pruned, and how the net is tuned"),
            key("calibration", "table", "see below", "how many images and positions a selector sees"),
            key("methods", "tables", REQUIRED, "the methods that are compared, one [[methods]] each"),
            key("from-scratch", "recipe", "none", "the control: nets of the same widths from a random start"),
            key(
                "variants",
                "tables",
                "none",
                "the study with other values of single keys, one [[variants]] each",
            ),
        ],
    },
    KeyTable {
        table: "input",
        about: "",
        keys: &[
            key(
                "size",
                "count",
                "the images' own",
                "side of the square input; larger than the images: zeros around",
            ),
            key(
                "mean",
                "numbers",
                "the dataset's",
                "mean of each channel, in their order and on the scale of range",
            ),
            key("std", "numbers", "the dataset's", "standard deviation of each channel"),
            key("order", "text", "the dataset's", "which channel comes first: rgb or bgr"),
            key("range", "number", "the dataset's", "value of the brightest pixel: 1 or 255"),
        ],
    },
    KeyTable {
        table: "net",
        about: "",
        keys: &[
            key("arch", "text", REQUIRED, "the network, see `thinet list models`"),
            key("width", "number", "1", "multiplies the width of every layer, rounding down"),
            key("widths", "table", "none", "filters of single layers by name, such as { conv1_1 = 32 }"),
            key("batch-norm", "true/false", "the network's", "batch normalisation after every convolution"),
            key("stride", "text", "1x1", "where resnet50 strides: 1x1 (the paper's) or 3x3 (torchvision's)"),
            key("dropout", "number", "0.5", "dropout of vgg16's hidden linear layers"),
        ],
    },
    KeyTable {
        table: "compute",
        about: "",
        keys: &[
            key("threads", "count", "1", "libtorch threads per process; its sums depend on them"),
            key("channels-last", "true/false", "false", "store activations with the channel axis last"),
            key("precision", "text", "f32", "f32, or bf16 for training"),
            key("tf32", "true/false", "false", "let training on a GPU round factors to TF32"),
            key(
                "deterministic",
                "true/false",
                "false",
                "the same bits every time on a GPU, too, or an error",
            ),
        ],
    },
    KeyTable {
        table: "dense",
        about: "",
        keys: &[
            key("train", "recipe", "none", "train it here; from the weights, if there are any"),
            key(
                "weights",
                "path",
                "none",
                "read it from this file, relative to the spec: safetensors or PyTorch",
            ),
            key("import", "table", "see below", "how the file's tensors are mapped to this net's"),
            key("allow-chance", "true/false", "false", "prune a net near chance anyway"),
        ],
    },
    KeyTable {
        table: "dense.import",
        about: "",
        keys: &[
            key(
                "layout",
                "text",
                "inferred from names",
                "whose names the file follows: own, torchvision, timm or caffe",
            ),
            key("dtype", "text", "f32", "the element type that the file must have: f32, f16, bf16 or f64"),
            key("fresh", "texts", "none", "layers that start at random instead; [dense.train] trains them"),
            key("ignore", "texts", "none", "prefixes of names in the file to skip"),
            key("prefix", "text", "the usual ones", "prefix of the names to read, such as backbone."),
            key("key", "text", "the usual ones", "the entry of a checkpoint that holds the weights"),
        ],
    },
    KeyTable {
        table: "dense.train",
        about: "a recipe; so are prune.after-layer, prune.after-last, prune.exceptions.recipe and from-scratch",
        keys: &[
            key("epochs", "count", "or steps", "length in passes over the training images"),
            key("steps", "count", "or epochs", "length in batches"),
            key("batch", "count", "128", "images per batch; a last short batch is dropped"),
            key("lr", "number", REQUIRED, "learning rate at the start"),
            key("momentum", "number", "0.9", "momentum of SGD"),
            key("nesterov", "true/false", "false", "Nesterov's momentum, by the rule of PyTorch's SGD"),
            key("weight-decay", "number", "0.0005", "L2 penalty added to the gradient"),
            key("bias-lr", "number", "1", "multiplies the learning rate of biases"),
            key("bias-decay", "number", "1", "multiplies the weight decay of biases"),
            key(
                "layer-lr",
                "table",
                "none",
                "multiplies it for single layers or tensors, such as { fc = 10 }",
            ),
            key("layer-decay", "table", "none", "multiplies the weight decay of single layers or tensors"),
            key("schedule", "table", "constant", "how the learning rate falls"),
            key("warm-up", "number", "0", "fraction of the training over which it rises linearly from 0"),
            key("augment", "table", "none", "random changes of the training images"),
            key(
                "init",
                "text",
                "fan-out",
                "variance of a convolution's starting weights: 2 over fan-out or fan-in",
            ),
        ],
    },
    KeyTable {
        table: "dense.train.schedule",
        about: "kind = \"constant\", \"cosine\" (both without further keys), \"step\" or \"exponential\"; in every recipe",
        keys: &[
            key(
                "kind",
                "text",
                "constant",
                "constant, step (at some fractions), cosine (to 0) or exponential (by epoch)",
            ),
            key(
                "at",
                "numbers",
                REQUIRED,
                "step: fractions of the training at which the rate falls, such as [0.5, 0.75]",
            ),
            key(
                "gamma",
                "number",
                "0.1",
                "factor of the rate: step, at each of them; exponential (required), each epoch",
            ),
            key(
                "from-epoch",
                "count",
                "1",
                "exponential: the first epoch, counted from 0, whose rate is smaller than the one before",
            ),
        ],
    },
    KeyTable {
        table: "dense.train.augment",
        about: "in every recipe",
        keys: &[
            key("random-crop", "true/false", "false", "cut each photograph as its protocol does"),
            key(
                "crop-padding",
                "count",
                "0",
                "zeros on each side, from which a crop of the final size is cut",
            ),
            key("mirror", "true/false", "false", "swap left and right of every second image"),
        ],
    },
    KeyTable {
        table: "prune",
        about: "",
        keys: &[
            key(
                "layers",
                "texts",
                "\"all\"",
                "layers and groups to prune, in this order; \"all\": convolutions that one layer reads",
            ),
            key("keep-rates", "numbers", "or flops", "fractions of channels that stay, in (0, 1]"),
            key(
                "flops",
                "numbers",
                "or keep-rates",
                "fractions of the dense net's FLOPs; each is met by the largest uniform keep rate",
            ),
            key(
                "mode",
                "text",
                "layer-by-layer",
                "layer-by-layer (the paper's), or one-shot from one calibration",
            ),
            key(
                "allocation",
                "text",
                "uniform",
                "uniform (one share of every layer), or global: layers ranked together (one-shot only)",
            ),
            key(
                "normalisation",
                "text",
                "mean",
                "what the scores of a layer are divided by (global only): mean, max, l2 or none",
            ),
            key(
                "layer-rates",
                "table",
                "none",
                "keep rates of single layers, in place of keep-rates and flops",
            ),
            key(
                "after-layer",
                "recipe",
                "none",
                "short tuning after each layer but the last; not in one-shot mode",
            ),
            key("exceptions", "tables", "none", "layers with another tuning after them, or none"),
            key("after-last", "recipe", "none", "long tuning at the end"),
            key(
                "estimate-batch-norm",
                "true/false",
                "false",
                "also test cut nets with batch-norm statistics of calibration images",
            ),
        ],
    },
    KeyTable {
        table: "prune.exceptions",
        about: "one [[prune.exceptions]] each",
        keys: &[
            key("layers", "texts", REQUIRED, "the layers"),
            key("recipe", "recipe", "none", "the tuning after each of them; without it there is none"),
        ],
    },
    KeyTable {
        table: "calibration",
        about: "",
        keys: &[
            key("images-per-class", "count", "10", "training images drawn of every class"),
            key("positions-per-image", "count", "10", "outputs of the next layer looked at in every image"),
            key(
                "draw",
                "count",
                "0",
                "which of the samples of this size: 0 is that of specs without the key, each other number draws again; for variants",
            ),
        ],
    },
    KeyTable {
        table: "methods",
        about: "one [[methods]] each",
        keys: &[
            key(
                "selector",
                "text or table",
                REQUIRED,
                "see `thinet list selectors`, or a program, see below",
            ),
            key("reconstruction", "text", "none", "see `thinet list reconstructions`"),
            key("label", "text", "from the two", "the name in tables"),
        ],
    },
    KeyTable {
        table: "methods.selector",
        about: "a program in place of a registered selector; it runs with --allow-commands only",
        keys: &[
            key(
                "command",
                "texts",
                REQUIRED,
                "program and arguments, such as [\"python3\", \"my_selector.py\"]",
            ),
            key(
                "files",
                "texts",
                "none",
                "further files that it reads; their contents are part of the method",
            ),
            key(
                "folder",
                "path",
                "the spec's",
                "folder in which it runs and its files lie, relative to the spec",
            ),
            key(
                "needs",
                "texts",
                "filters and all gathered",
                "kinds of evidence: filters, batch-norm-scales, zeros, activations, moments",
            ),
            key("timeout", "count", "600", "longest time for an answer, seconds"),
        ],
    },
    KeyTable {
        table: "variants",
        about: "one [[variants]] each; it can override and add keys, but remove none",
        keys: &[
            key("name", "text", REQUIRED, "the name in tables"),
            key(
                ANY_KEY,
                "its type",
                "as the spec",
                "a key of calibration, prune or from-scratch in quotes, such as \"prune.mode\"",
            ),
        ],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde::de::DeserializeOwned;
    use thinet_data::Augment;
    use thinet_models::{ImportRules, Schedule};
    use thinet_nets::NetSpec;
    use thinet_sampling::SamplingSpec;

    use super::*;
    use crate::study::{
        CommandSpec, ComputeSpec, DenseSpec, Exception, InputSpec, MethodSpec, PruneSpec, Recipe, Spec,
    };

    /// The keys of a type: those that serde lists for an unknown one, and the key that decides the others, if there is one.
    fn known<T: DeserializeOwned>(start: &str) -> BTreeSet<String> {
        let error =
            toml::from_str::<T>(&format!("{start}\nstray = 1")).err().expect("a stray key is refused");
        let message = error.message().to_owned();
        assert!(message.contains("unknown field `stray`"), "{message}");
        let offered = message.split('`').skip(1).step_by(2).filter(|name| *name != "stray");
        offered.chain(start.split(' ').next().filter(|key| !key.is_empty())).map(str::to_owned).collect()
    }

    #[test]
    fn every_key_of_every_table_is_listed_and_no_other() {
        let types = [
            known::<Spec>(""),
            known::<InputSpec>(""),
            known::<NetSpec>(""),
            known::<ComputeSpec>(""),
            known::<DenseSpec>(""),
            known::<ImportRules>(""),
            known::<Recipe>(""),
            &known::<Schedule>("kind = 'step'") | &known::<Schedule>("kind = 'exponential'"),
            known::<Augment>(""),
            known::<PruneSpec>(""),
            known::<Exception>(""),
            known::<SamplingSpec>(""),
            known::<MethodSpec>(""),
            known::<CommandSpec>(""),
            BTreeSet::from(["name", ANY_KEY].map(str::to_owned)),
        ];
        assert_eq!(types.len(), KEYS.len());
        for (known, table) in types.iter().zip(KEYS) {
            let listed: BTreeSet<String> = table.keys.iter().map(|key| key.name.to_owned()).collect();
            assert_eq!(&listed, known, "[{}] {}: list it in keys.rs", table.table, table.about);
            assert_eq!(listed.len(), table.keys.len(), "[{}]: a key is listed twice", table.table);
        }
    }

    #[test]
    fn defaults_are_those_that_a_resolved_spec_shows() {
        let text = "name = 'x'\ndataset = { kind = 'fashion-mnist' }\nnet = { arch = 'tiny' }\n\
            dense.train = { epochs = 1, lr = 0.1, schedule = { kind = 'step', at = [0.5] } }\nprune.keep-rates = [0.5]\n\
            methods = [{ selector = 'random' }]";
        let spec = Spec::parse(text, Path::new("x.toml")).unwrap();
        let resolved = serde_json::to_value(&spec).unwrap();
        let mut compared = 0;
        for table in tables() {
            let path = format!("/{}", table.table.replace('.', "/").replace("methods", "methods/0"));
            let Some(of_table) = resolved.pointer(path.trim_end_matches('/')) else { continue };
            for key in table.keys {
                let Some(value) = of_table.get(key.name) else { continue };
                let is_text_or_number = value.is_string() || value.is_number() || value.is_boolean();
                if !is_text_or_number || [REQUIRED, "or steps"].contains(&key.default) || key.name == "kind" {
                    continue;
                }
                let plain = key.default.trim_matches('"');
                let same_number = || Some(value.as_f64()? == plain.parse::<f64>().ok()?);
                let is_same = value.as_str() == Some(plain)
                    || same_number() == Some(true)
                    || value.as_bool().is_some_and(|value| plain.parse() == Ok(value));
                assert!(
                    is_same,
                    "[{}] {}: {} is listed, {value} is meant",
                    table.table, key.name, key.default
                );
                compared += 1;
            }
        }
        assert!(compared > 12, "{compared}");
    }
}
