//! The report of an import, for logs and for the console.

use serde::Serialize;

use crate::{FileType, Layout};

/// The report of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImportReport {
    /// `safetensors`, `zip` or `stream`.
    pub container: &'static str,
    /// The key that the state dict was found under, if it was wrapped.
    pub wrapper: Option<String>,
    /// The prefix that was removed from every name.
    pub prefix: Option<String>,
    /// The naming scheme of the file.
    pub layout: Layout,
    /// The element type in the file.
    pub dtype: FileType,
    /// Name in the file and name of the net's tensor, where they differ.
    pub mapped: Vec<(String, String)>,
    /// Number of tensors that were imported.
    pub taken: usize,
    /// Names in the file that are not used.
    pub ignored: Vec<String>,
    /// Tensors of the net that start at random.
    pub fresh: Vec<String>,
    /// Conversions, one line each.
    pub notes: Vec<String>,
}

impl ImportReport {
    /// The report in a few lines of text.
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
