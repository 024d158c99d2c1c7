//! The environment of this process as it is stored beside results: program, libtorch, processor or GPU, commit of the spec.

use std::fs;
use std::path::Path;
use std::process::Command;

use thinet_models::Device;
use thinet_report::records::{Environment, Gpu, Program};
use thinet_report::tables::Machine;

use super::processor::cpu_identity;

/// Environment variables that select CPU kernels, and with them the last bits of a result.
const VARIABLES: [&str; 6] = [
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
];

/// Environment variables that select GPU kernels.
const GPU_VARIABLES: [&str; 3] =
    ["CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"];

/// The environment of this process. Unknown entries are empty.
#[must_use]
pub fn environment_here(
    program: &Program,
    device: Device,
    threads: usize,
    spec_folder: &Path,
) -> Environment {
    let (spec_commit, spec_dirty) = checkout(spec_folder);
    let processor = cpu_identity();
    let of_gpu = if device.is_gpu() { &GPU_VARIABLES[..] } else { &[] };
    let set = |name: &&str| Some(((*name).to_owned(), std::env::var(name).ok().filter(|v| !v.is_empty())?));
    Environment {
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
        gpu: gpu(device),
        variables: VARIABLES.iter().chain(of_gpu).filter_map(set).collect(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        device: device.to_string(),
        threads,
        jobs: None,
        host: Some(host_name()),
    }
}

/// The GPU of a device; `None` for a CPU.
fn gpu(device: Device) -> Option<Gpu> {
    let thinet_models::Gpu { model, driver, cuda, cudnn } = thinet_models::gpu(device)?;
    Some(Gpu { model, driver, cuda, cudnn })
}

/// The parts of this machine that timings on a device depend on; an unavailable device has no card.
#[must_use]
pub fn machine(device: &str) -> Machine {
    let device = device.parse::<Device>().ok().filter(|device| device.check_available().is_ok());
    let card = device.and_then(gpu);
    let card = card.map(|card| card.model.unwrap_or_default());
    Machine { cpu: cpu_identity(), libtorch: thinet_models::LIBTORCH_VERSION.to_owned(), card }
}

/// This machine's name.
#[must_use]
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}

/// Commit of the checkout that a folder lies in, and whether its tracked files differ from it.
fn checkout(folder: &Path) -> (Option<String>, Option<bool>) {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // A run writes to `results`, so changes there are unrelated to the spec.
    let code = ["status", "--porcelain", "--untracked-files=no", "--", ":(top)", ":(top,exclude)results"];
    (git(&["rev-parse", "HEAD"]), git(&code).map(|changes| !changes.is_empty()))
}

/// The processor's model name, if the system provides it.
#[must_use]
pub fn cpu_model() -> Option<String> {
    cpu_identity().name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(program: &Program, folder: &Path) -> Environment {
        environment_here(program, Device::Cpu, 1, folder)
    }

    #[test]
    fn the_program_and_the_folder_of_the_spec_have_commits_of_their_own() {
        let nowhere = tempfile::tempdir().unwrap();
        let program = Program { commit: Some("c0ffee".into()), dirty: Some(false) };
        let here_now = here(&program, nowhere.path());
        assert_eq!(
            (here_now.program_commit.as_deref(), here_now.program_dirty),
            (Some("c0ffee"), Some(false))
        );
        assert_eq!((&here_now.spec_commit, here_now.spec_dirty), (&None, None));
        let source = here(&Program::default(), Path::new("."));
        assert_eq!((source.program_commit, source.program_dirty), (None, None));
    }

    #[test]
    fn the_settings_that_select_cpu_kernels_are_recorded() {
        let here = here(&Program::default(), Path::new("."));
        assert!(here.cpu_capability.is_some_and(|name| !name.is_empty()));
        assert!(here.processor.is_some() && here.gpu.is_none());
    }
}
