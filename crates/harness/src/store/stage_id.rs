//! The identity of a stage: a hash of everything that can change its output.

/// Raised when the meaning of stored stages changes, so that old ones are not mistaken for new ones.
const STORE_VERSION: u32 = 1;

/// Identity of a stage: kind and hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StageId(String);

impl StageId {
    /// Hashes a stage's kind, version and everything that can change its output.
    pub fn of(kind: &str, version: u32, inputs: &serde_json::Value) -> Self {
        // serde_json's maps are sorted, so the text is canonical.
        let text =
            serde_json::json!({ "store": STORE_VERSION, "kind": kind, "version": version, "inputs": inputs })
                .to_string();
        let hash = blake3::hash(text.as_bytes()).to_hex();
        Self(format!("{kind}-{}", &hash[..16]))
    }

    /// Parses an id from a manifest or table; `None` if no stage can have it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        is_plain.then(|| Self(text.to_owned()))
    }

    /// The kind in front of the hash, such as `dense`.
    pub(crate) fn kind(&self) -> &str {
        self.0.rsplit_once('-').map_or(&self.0, |(kind, _)| kind)
    }

    /// The id as text, such as `dense-0123456789abcdef`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for StageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_pinned_and_depend_on_kind_version_and_inputs() {
        let inputs = serde_json::json!({ "b": 1, "a": 0.1 });
        let id = StageId::of("cell", 1, &inputs);
        assert_eq!(id.as_str(), "cell-c70229c64f630368");
        assert_eq!(id, StageId::of("cell", 1, &serde_json::json!({ "a": 0.1, "b": 1 })));
        assert_ne!(id, StageId::of("dense", 1, &inputs));
        assert_ne!(id, StageId::of("cell", 2, &inputs));
        assert_ne!(id, StageId::of("cell", 1, &serde_json::json!({ "a": 0.2, "b": 1 })));
    }
}
