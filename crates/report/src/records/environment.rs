//! Environment of a computation: program, versions, processor or GPU, threads. Stored beside the results, never part of a table or an
//! id.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CpuIdentity, Difference, differences, leaves};

/// The build of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Commit of its sources; `None` if they were not in a checkout.
    pub commit: Option<String>,
    /// Whether the sources differed from that commit.
    pub dirty: Option<bool>,
}

/// A GPU and its software. Unknown entries are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Gpu {
    /// Its model, such as `NVIDIA H100 80GB HBM3`.
    pub model: Option<String>,
    pub driver: Option<String>,
    /// Version of the CUDA runtime that libtorch uses.
    pub cuda: Option<String>,
    pub cudnn: Option<String>,
}

/// Keys that do not affect results.
const IRRELEVANT: [&str; 6] = ["host", "jobs", "cores", "processor.cores", "spec-commit", "spec-dirty"];

/// The environment of a run. Keys that were added later are empty in files of old versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Environment {
    /// Version of this program.
    pub version: String,
    /// Commit that this program was built from; `None` if its sources were not in a checkout.
    #[serde(default)]
    pub program_commit: Option<String>,
    /// Whether the sources differed from that commit.
    #[serde(default)]
    pub program_dirty: Option<bool>,
    /// Commit of the checkout that the spec lies in, if it lies in one. Old versions called it `commit`.
    #[serde(default, alias = "commit")]
    pub spec_commit: Option<String>,
    /// Whether tracked files of that checkout, results aside, differed from the commit.
    #[serde(default, alias = "dirty")]
    pub spec_dirty: Option<bool>,
    /// Version of libtorch that the program was built for.
    pub libtorch: String,
    /// Operating system and processor architecture.
    pub platform: String,
    /// Processor model, if the system provides it.
    #[serde(default)]
    pub cpu: Option<String>,
    /// Identifies the processor among those of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<CpuIdentity>,
    /// The instruction set of libtorch's kernels, as libtorch names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_capability: Option<String>,
    /// The GPU, if the device is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// Environment variables that select kernels, if set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Cores available to the process.
    pub cores: usize,
    pub device: String,
    /// libtorch threads per process.
    pub threads: usize,
    /// Worker processes of the run; `None` for a single stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<usize>,
    /// Name of the machine; stored with stages, left out of tables, which are passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl Environment {
    /// The differences between two environments that can affect results.
    ///
    /// # Errors
    /// If one cannot be written as JSON.
    pub fn relevant_differences(&self, other: &Self) -> Result<Vec<Difference>, serde_json::Error> {
        let facts = |environment: &Self| serde_json::to_value(environment).map(|value| leaves(&value));
        let mut found = differences(&facts(self)?, &facts(other)?);
        found.retain(|difference| !IRRELEVANT.contains(&difference.key.as_str()));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{ "version": "0.1.0", "commit": "4485e44", "dirty": true, "libtorch": "2.11.0",
        "platform": "linux-x86_64", "cpu": "AMD EPYC", "cores": 2, "device": "cpu", "threads": 1, "jobs": 2 }"#;

    #[test]
    fn environments_of_old_versions_stay_readable() {
        let old: Environment = serde_json::from_str(OLD).unwrap();
        assert_eq!((old.spec_commit.as_deref(), old.spec_dirty), (Some("4485e44"), Some(true)));
        assert_eq!((&old.program_commit, old.program_dirty), (&None, None));
        let text = serde_json::to_string(&old).unwrap();
        assert_eq!(serde_json::from_str::<Environment>(&text).unwrap(), old);
    }

    #[test]
    fn differences_name_what_can_change_bits_and_nothing_else() {
        let here: Environment = serde_json::from_str(OLD).unwrap();
        let mut other = Environment { host: None, jobs: Some(7), cores: 1 + here.cores, ..here.clone() };
        assert_eq!(here.relevant_differences(&other).unwrap(), []);
        other.cpu_capability = Some("DEFAULT".into());
        other.variables.insert("MKL_CBWR".into(), "COMPATIBLE".into());
        let keys: Vec<String> =
            here.relevant_differences(&other).unwrap().into_iter().map(|difference| difference.key).collect();
        assert_eq!(keys, ["cpu-capability", "variables.MKL_CBWR"]);
    }
}
