//! Where a run was made: the program, its versions, the processor or GPU, threads. Written beside the results, never part of
//! a table or an id.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};
use thinet_models::{Device, Gpu};

use crate::cpu::{CpuIdentity, cpu_identity};
use crate::diff::{Difference, differences, flat};
use crate::error::HarnessError;

/// What a program was built from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Commit of its sources; none if they were not in a checkout.
    pub commit: Option<String>,
    /// Whether the sources differed from that commit.
    pub dirty: Option<bool>,
}

/// Variables that change which kernels a CPU runs, and with them the last bits of a result.
const VARIABLES: [&str; 6] = [
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
];

/// The same for a GPU.
const GPU_VARIABLES: [&str; 3] =
    ["CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"];

/// What says nothing about how bits come about.
const IRRELEVANT: [&str; 6] = ["host", "jobs", "cores", "processor.cores", "spec-commit", "spec-dirty"];

/// The environment of a run. Keys that came later are empty in files of old versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Environment {
    /// Version of this program.
    pub version: String,
    /// Commit that this program was built from; none if its sources were not in a checkout.
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
    /// Processor model, where the system tells.
    #[serde(default)]
    pub cpu: Option<String>,
    /// Which processor of that name it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<CpuIdentity>,
    /// The instruction set of libtorch's kernels, in its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_capability: Option<String>,
    /// The GPU, where the device is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// Variables of the environment that choose kernels, as far as they are set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Cores that the process may use.
    pub cores: usize,
    /// Compute device.
    pub device: String,
    /// libtorch threads per process.
    pub threads: usize,
    /// Worker processes of the run; of a single stage there is no such number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<usize>,
    /// Name of the machine, kept with stages; tables that are passed on do not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl Environment {
    /// The environment of this process. What cannot be found out is left empty.
    #[must_use]
    pub fn here(program: &Program, device: Device, threads: usize, spec_folder: &Path) -> Self {
        let (spec_commit, spec_dirty) = checkout(spec_folder);
        let processor = cpu_identity();
        let gpu = if device.is_gpu() { &GPU_VARIABLES[..] } else { &[] };
        let set =
            |name: &&str| Some(((*name).to_owned(), std::env::var(name).ok().filter(|v| !v.is_empty())?));
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            program_commit: program.commit.clone(),
            program_dirty: program.dirty,
            spec_commit,
            spec_dirty,
            libtorch: thinet_models::LIBTORCH_VERSION.to_owned(),
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            cpu: processor.name.clone(),
            processor: Some(processor),
            cpu_capability: thinet_models::cpu_capability(),
            gpu: thinet_models::gpu(device),
            variables: VARIABLES.iter().chain(gpu).filter_map(set).collect(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            device: recorded(device),
            threads,
            jobs: None,
            host: Some(crate::claim::host_name()),
        }
    }

    /// What of two environments can make results differ, where it differs.
    ///
    /// # Errors
    /// If one cannot be written as JSON.
    pub fn relevant_differences(&self, other: &Self) -> Result<Vec<Difference>, HarnessError> {
        let facts = |environment: &Self| {
            serde_json::to_value(environment).map(|value| flat(&value)).map_err(HarnessError::Json)
        };
        let mut found = differences(&facts(self)?, &facts(other)?);
        found.retain(|difference| !IRRELEVANT.contains(&difference.key.as_str()));
        Ok(found)
    }
}

/// A device as stage records have always named it. The files of `thinet latency` hold its usual name (`cuda:0`).
fn recorded(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Cuda(index) => format!("cuda({index})"),
    }
}

/// Commit of the checkout that a folder lies in, and whether its tracked files differ from it.
fn checkout(folder: &Path) -> (Option<String>, Option<bool>) {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // A run writes into `results`, so what has changed there says nothing about the spec.
    let code = ["status", "--porcelain", "--untracked-files=no", "--", ":(top)", ":(top,exclude)results"];
    (git(&["rev-parse", "HEAD"]), git(&code).map(|changes| !changes.is_empty()))
}

/// The processor's model, where the system tells.
#[must_use]
pub fn cpu_model() -> Option<String> {
    cpu_identity().name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Environment {
        let program = Program { commit: Some("c0ffee".into()), dirty: Some(false) };
        let nowhere = tempfile::tempdir().unwrap();
        Environment::here(&program, Device::Cpu, 1, nowhere.path())
    }

    #[test]
    fn the_program_and_the_folder_of_the_spec_are_told_apart() {
        let here = here();
        assert_eq!((here.program_commit.as_deref(), here.program_dirty), (Some("c0ffee"), Some(false)));
        assert_eq!((&here.spec_commit, here.spec_dirty), (&None, None));
        let source = Environment::here(&Program::default(), Device::Cpu, 1, Path::new("."));
        assert_eq!((source.program_commit, source.program_dirty), (None, None));
    }

    #[test]
    fn devices_are_recorded_as_in_records_of_old_versions() {
        assert_eq!([recorded(Device::Cpu), recorded(Device::Cuda(1))], ["cpu", "cuda(1)"]);
    }

    #[test]
    fn what_chooses_a_cpus_kernels_is_told() {
        let here = here();
        assert!(here.cpu_capability.is_some_and(|name| !name.is_empty()));
        assert!(here.processor.is_some() && here.gpu.is_none());
    }

    #[test]
    fn environments_of_old_versions_stay_readable() {
        let old = r#"{ "version": "0.1.0", "commit": "4485e44", "dirty": true, "libtorch": "2.11.0",
            "platform": "linux-x86_64", "cpu": "AMD EPYC", "cores": 2, "device": "cpu", "threads": 1, "jobs": 2 }"#;
        let old: Environment = serde_json::from_str(old).unwrap();
        assert_eq!((old.spec_commit.as_deref(), old.spec_dirty), (Some("4485e44"), Some(true)));
        assert_eq!((&old.program_commit, old.program_dirty), (&None, None));
        let text = serde_json::to_string(&old).unwrap();
        assert_eq!(serde_json::from_str::<Environment>(&text).unwrap(), old);
    }

    #[test]
    fn differences_name_what_can_change_bits_and_nothing_else() {
        let here = here();
        let mut other = Environment { host: None, jobs: Some(7), cores: 1 + here.cores, ..here.clone() };
        assert_eq!(here.relevant_differences(&other).unwrap(), []);
        other.cpu_capability = Some("DEFAULT".into());
        other.variables.insert("MKL_CBWR".into(), "COMPATIBLE".into());
        let keys: Vec<String> =
            here.relevant_differences(&other).unwrap().into_iter().map(|difference| difference.key).collect();
        assert_eq!(keys, ["cpu-capability", "variables.MKL_CBWR"]);
    }
}
