//! What an import did, for a log and for people.

use serde::Serialize;

use crate::{FileType, Layout};

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImportReport {
    /// `safetensors`, `zip` or `stream`.
    pub container: &'static str,
    /// The key that the state dict was found under, if it was wrapped.
    pub wrapper: Option<String>,
    /// The prefix that was taken off every name.
    pub prefix: Option<String>,
    /// Whose names the file has.
    pub layout: Layout,
    /// The element type in the file.
    pub dtype: FileType,
    /// Name in the file and name of the net's tensor, where they differ.
    pub mapped: Vec<(String, String)>,
    /// Tensors that were taken.
    pub taken: usize,
    /// Names in the file that are not used.
    pub ignored: Vec<String>,
    /// Tensors of the net that the file is not asked for.
    pub fresh: Vec<String>,
    /// What was changed on the way, one line each.
    pub notes: Vec<String>,
}

impl ImportReport {
    /// The report for people, a few lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut first = format!("{} tensors from {} ({:?} names", self.taken, self.container, self.layout);
        if let Some(key) = &self.wrapper {
            first.push_str(&format!(", under {key:?}"));
        }
        if let Some(prefix) = &self.prefix {
            first.push_str(&format!(", prefix {prefix:?} taken off"));
        }
        first.push(')');
        let mut lines = vec![first.to_lowercase()];
        if let (Some((from, to)), Some((last, of_last))) = (self.mapped.first(), self.mapped.last()) {
            lines.push(format!("{} names mapped: {from} to {to} … {last} to {of_last}", self.mapped.len()));
        }
        if !self.ignored.is_empty() {
            let some = self.ignored.iter().take(4).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if self.ignored.len() > 4 { " …" } else { "" };
            lines.push(format!("{} not used: {some}{more}", self.ignored.len()));
        }
        if !self.fresh.is_empty() {
            lines.push(format!("start at random: {}", self.fresh.join(", ")));
        }
        lines.extend(self.notes.iter().cloned());
        lines
    }
}
