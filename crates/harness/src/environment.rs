//! Where a run was made: commit, versions, processor, threads. Written beside the results, never part of a table or an id.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The environment of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Environment {
    /// Version of this program.
    pub version: String,
    /// Commit of the checkout, if it is one.
    pub commit: Option<String>,
    /// Whether tracked files differed from that commit.
    pub dirty: Option<bool>,
    /// Version of libtorch that the program was built for.
    pub libtorch: String,
    /// Operating system and processor architecture.
    pub platform: String,
    /// Processor model, where the system tells.
    pub cpu: Option<String>,
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
    /// Looks around. What cannot be found out is left empty.
    #[must_use]
    pub fn here(device: tch::Device, threads: usize, checkout: &Path) -> Self {
        let git = |arguments: &[&str]| {
            let output = Command::new("git").arg("-C").arg(checkout).args(arguments).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        // A run writes into `results`, so what has changed there says nothing about the code.
        let code = ["status", "--porcelain", "--untracked-files=no", "--", ":(top)", ":(top,exclude)results"];
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: git(&["rev-parse", "HEAD"]),
            dirty: git(&code).map(|changes| !changes.is_empty()),
            libtorch: thinet_models::LIBTORCH_VERSION.to_owned(),
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            cpu: cpu_model(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            device: format!("{device:?}").to_lowercase(),
            threads,
            jobs: None,
            host: Some(crate::claim::host_name()),
        }
    }
}

/// The processor's model, where the system tells.
#[must_use]
pub fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
