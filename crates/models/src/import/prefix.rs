//! Removes the prefixes that wrappers add to names: `DataParallel`, `torch.compile`, Lightning, averaged models.

use std::path::Path;

use crate::file::bad_file;
use crate::weights::TensorKind;
use crate::{ImportRules, ModelError};

/// Prefixes of all names, by wrapper: `DataParallel` and averaged models, `torch.compile`, Lightning.
const WHOLE: [&str; 3] = ["module.", "_orig_mod.", "model."];
/// VGG's two parts, each in a `DataParallel`.
const PARTS: [&str; 2] = ["features.module.", "classifier.module."];
/// The counter of `torch.optim.swa_utils.AveragedModel`.
const AVERAGED: &str = "n_averaged";
/// Words in the names of modules that hold a running average in addition to the weights.
const AVERAGES: [&str; 2] = ["ema", "swa"];

/// A tensor of the file, and its name without prefix.
pub(super) struct FileTensor {
    pub(super) name: String,
    pub(super) from: String,
    pub(super) kind: TensorKind,
}

/// The names of a file after prefixes are removed.
pub(super) struct Names {
    /// The prefix that was removed.
    pub(super) prefix: Option<String>,
    /// Tensors that may belong to the net.
    pub(super) wanted: Vec<FileTensor>,
    /// The others, by their names in the file.
    pub(super) aside: Vec<String>,
    /// Notes for the user, one line each.
    pub(super) notes: Vec<String>,
}

/// Removes the prefix of the rules, then those of wrappers, which all names have or none.
pub(super) fn strip(
    path: &Path,
    entries: Vec<(String, TensorKind)>,
    rules: &ImportRules,
) -> Result<Names, ModelError> {
    let wanted = entries.into_iter().map(|(from, kind)| FileTensor { name: from.clone(), from, kind });
    let mut names = Names { prefix: None, wanted: wanted.collect(), aside: Vec::new(), notes: Vec::new() };
    names.set_aside(|name| rules.ignore.iter().any(|start| name.starts_with(start.as_str())));
    if let Some(prefix) = &rules.prefix {
        names.set_aside(|name| !name.starts_with(prefix.as_str()));
        if names.wanted.is_empty() {
            let some = names
                .aside
                .first()
                .map_or("there is none".to_owned(), |name| format!("the first is {name:?}"));
            let problem = format!("has no name that starts with dense.import.prefix = {prefix:?}; {some}");
            return Err(bad_file(path, problem));
        }
        names.take_off(prefix);
    }
    loop {
        if names.set_aside(|name| name == AVERAGED) {
            names.notes.push(format!("the weights are a running average of a training ({AVERAGED})"));
        }
        names.set_averages_aside();
        let Some(prefix) =
            WHOLE.into_iter().find(|prefix| names.wanted.iter().any(|s| s.name.starts_with(prefix)))
        else {
            break;
        };
        names.same_for_all(path, prefix, |_| true)?;
        names.take_off(prefix);
    }
    // torchvision's old example wraps VGG's features only; the classifier is then as it was.
    let [features, classifier] = PARTS;
    if names.wanted.iter().any(|tensor| tensor.name.starts_with(features)) {
        names.same_for_all(path, features, |name| name.starts_with("features."))?;
        for tensor in &mut names.wanted {
            tensor.name =
                tensor.name.replacen(features, "features.", 1).replacen(classifier, "classifier.", 1);
        }
        names.prefix.get_or_insert_default().push_str(features);
    }
    Ok(names)
}

impl Names {
    /// Leaves out the tensors of these names; returns whether there were any.
    fn set_aside(&mut self, unwanted: impl Fn(&str) -> bool) -> bool {
        let (aside, wanted): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.wanted).into_iter().partition(|tensor| unwanted(&tensor.name));
        self.wanted = wanted;
        self.aside.extend(aside.iter().map(|tensor| tensor.from.clone()));
        !aside.is_empty()
    }

    /// Leaves out averages of the weights that lie beside the weights, under names such as `ema_model.`.
    fn set_averages_aside(&mut self) {
        let is_average = |name: &str| {
            name.split_once('.').is_some_and(|(module, _)| {
                module
                    .split('_')
                    .any(|word| AVERAGES.iter().any(|average| word.eq_ignore_ascii_case(average)))
            })
        };
        if self.wanted.iter().all(|tensor| is_average(&tensor.name)) {
            return;
        }
        let module = self.wanted.iter().find(|tensor| is_average(&tensor.name)).and_then(|tensor| {
            let (module, _) = tensor.name.split_once('.')?;
            Some(format!("{}{module}.", self.prefix.as_deref().unwrap_or_default()))
        });
        if let Some(prefix) = module {
            self.set_aside(is_average);
            self.notes.push(format!(
                "the weights were taken, not their running average under {prefix:?}: dense.import.prefix = {prefix:?} takes \
                 that"
            ));
        }
    }

    fn take_off(&mut self, prefix: &str) {
        for tensor in &mut self.wanted {
            tensor.name = tensor.name[prefix.len()..].to_owned();
        }
        self.prefix.get_or_insert_default().push_str(prefix);
    }

    /// Refuses a file in which some of the names that are `meant` have a prefix and others do not.
    fn same_for_all(
        &self,
        path: &Path,
        prefix: &str,
        meant: impl Fn(&str) -> bool,
    ) -> Result<(), ModelError> {
        let with = self.wanted.iter().find(|tensor| tensor.name.starts_with(prefix));
        let without =
            self.wanted.iter().find(|tensor| meant(&tensor.name) && !tensor.name.starts_with(prefix));
        let (Some(with), Some(without)) = (with, without) else { return Ok(()) };
        let (with, without) = (&with.from, &without.from);
        let whole = format!("{}{prefix}", self.prefix.as_deref().unwrap_or_default());
        let problem = format!(
            "{with:?} has the prefix {prefix:?}, {without:?} has not: dense.import.prefix = {whole:?} takes those that have it, \
             dense.import.ignore leaves names out"
        );
        Err(bad_file(path, problem))
    }
}
