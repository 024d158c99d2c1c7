//! Which processor produced a result, exactly enough to distinguish generations that share a name.

use serde::{Deserialize, Serialize};

/// A processor, with the instruction set and cores in use.
///
/// Several generations can share a name ("AMD EPYC" on virtual machines); family, model and stepping distinguish them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CpuIdentity {
    /// Vendor, such as `AuthenticAMD`; on ARM the implementer's number.
    pub vendor: Option<String>,
    /// Model name.
    pub name: Option<String>,
    /// Family; on ARM the architecture.
    pub family: Option<String>,
    /// Model of the family; on ARM the part.
    pub model: Option<String>,
    /// Stepping of the model; on ARM variant and revision, such as `0x3p1`.
    pub stepping: Option<String>,
    /// The instruction set of libtorch's kernels.
    pub instruction_set: String,
    /// Cores available to the process.
    pub cores: usize,
}

impl CpuIdentity {
    /// All fields in one line, for hashing.
    #[must_use]
    pub fn key(&self) -> String {
        let Self { vendor, name, family, model, stepping, instruction_set, cores } = self;
        let known = |part: &Option<String>| part.clone().unwrap_or_default();
        let parts = [vendor, name, family, model, stepping].map(known);
        format!("{}|{instruction_set}|{cores}", parts.join("|"))
    }

    /// A description for messages, such as `AMD EPYC, family 25, model 17, stepping 1, avx512, 2 cores`.
    #[must_use]
    pub fn describe(&self) -> String {
        let numbers = [("family", &self.family), ("model", &self.model), ("stepping", &self.stepping)];
        let numbers =
            numbers.iter().filter_map(|(what, number)| Some(format!("{what} {}", number.as_ref()?)));
        let plural = if self.cores == 1 { "" } else { "s" };
        let mut parts = vec![self.name.clone().unwrap_or_else(|| "processor unknown".to_owned())];
        parts.extend(numbers);
        parts.extend([self.instruction_set.clone(), format!("{} core{plural}", self.cores)]);
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor() -> CpuIdentity {
        let text = |text: &str| Some(text.to_owned());
        CpuIdentity {
            vendor: text("AuthenticAMD"),
            name: text("AMD EPYC"),
            family: text("25"),
            model: text("1"),
            stepping: text("1"),
            instruction_set: "avx2".to_owned(),
            cores: 2,
        }
    }

    #[test]
    fn everything_that_affects_times_is_in_the_key() {
        let here = processor();
        assert_eq!(here.describe(), "AMD EPYC, family 25, model 1, stepping 1, avx2, 2 cores");
        for other in [
            CpuIdentity { stepping: Some("2".to_owned()), ..here.clone() },
            CpuIdentity { family: None, ..here.clone() },
            CpuIdentity { instruction_set: "avx512".to_owned(), ..here.clone() },
            CpuIdentity { cores: 4, ..here.clone() },
        ] {
            assert_ne!(other.key(), here.key(), "{other:?}");
        }
    }

    #[test]
    fn an_unknown_processor_is_described_as_unknown() {
        let unknown = CpuIdentity {
            vendor: None,
            name: None,
            family: None,
            model: None,
            stepping: None,
            instruction_set: "default".to_owned(),
            cores: 1,
        };
        assert_eq!(unknown.describe(), "processor unknown, default, 1 core");
    }
}
