//! Why a GPU cannot be used, in one line: no driver, one that is too old, a card that libtorch has no kernels for, a busy card.

#![allow(unsafe_code, reason = "calls into switches.cpp, which fills three integers or a text")]

use std::ffi::c_int;
use std::sync::OnceLock;

use crate::Device;

unsafe extern "C" {
    fn thinet_driver_facts(index: c_int, facts: *mut i64) -> c_int;
    fn thinet_load_cuda(reason: *mut u8, capacity: i64) -> i64;
}

/// What loading libtorch's CUDA library gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CudaLibrary {
    Loaded,
    /// There is none: this libtorch is built without CUDA.
    Missing,
    /// It is there and cannot be loaded, for the reason that the loader gives.
    Refused(String),
}

/// Loads libtorch's CUDA library by the first call, if there is one: debug programs and those of a wheel, which serve libtorch with and
/// without CUDA, are not linked with it. Libtorch looks for it once, so it is loaded when a device's name is read, before any other
/// work of libtorch.
pub(crate) fn cuda_library() -> &'static CudaLibrary {
    static LIBRARY: OnceLock<CudaLibrary> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let mut reason = [0; 512];
        // SAFETY: at most as many bytes are written as `reason` has.
        let length = unsafe { thinet_load_cuda(reason.as_mut_ptr(), 512) };
        let reason = usize::try_from(length).ok().and_then(|length| reason.get(..length)).unwrap_or_default();
        of_message(&String::from_utf8_lossy(reason))
    })
}

/// What the loader's message says; it is empty if the library is loaded.
fn of_message(message: &str) -> CudaLibrary {
    match message {
        "" => CudaLibrary::Loaded,
        text if text.starts_with("libtorch_cuda.so: cannot open") => CudaLibrary::Missing,
        text => CudaLibrary::Refused(text.to_owned()),
    }
}

/// The version of CUDA that the libtorch of [`LIBTORCH_VERSION`](crate::LIBTORCH_VERSION) is distributed for, as `13000` for 13.0.
/// Drivers of the same major version run it.
const CUDA: i64 = 13_000;

/// What the driver says about itself and a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DriverFacts {
    /// Whether there is a driver.
    is_there: bool,
    /// The newest CUDA that it supports; 12040 is 12.4.
    cuda: i64,
    /// How many GPUs it finds.
    gpus: i64,
    /// The compute capability of the GPU; 90 is 9.0.
    capability: i64,
}

/// Asks the driver.
pub(crate) fn driver_facts(device: Device) -> DriverFacts {
    let Device::Cuda(index) = device else { return DriverFacts::default() };
    let mut facts = [0_i64; 3];
    // SAFETY: three integers are written to `facts`.
    let code =
        unsafe { thinet_driver_facts(c_int::try_from(index).unwrap_or(c_int::MAX), facts.as_mut_ptr()) };
    let [cuda, gpus, capability] = facts;
    DriverFacts { is_there: code == 0, cuda, gpus, capability }
}

/// Why libtorch finds no GPU.
pub(crate) fn why_none(facts: DriverFacts, library: &CudaLibrary) -> String {
    match library {
        CudaLibrary::Loaded => {}
        CudaLibrary::Missing => {
            return "is not available: this libtorch is built without CUDA; install one with CUDA, or use cpu"
                .to_owned();
        }
        CudaLibrary::Refused(reason) => {
            return format!("is not available: libtorch's CUDA library cannot be loaded: {reason}");
        }
    }
    match facts {
        DriverFacts { is_there: false, .. } => {
            "is not available: no NVIDIA driver is installed (there is no libcuda.so.1); use cpu".to_owned()
        }
        DriverFacts { cuda, .. } if cuda > 0 && cuda / 1000 < CUDA / 1000 => format!(
            "is not available: its driver is too old, it supports CUDA {} and libtorch needs CUDA {}; update the driver",
            version(cuda),
            version(CUDA)
        ),
        DriverFacts { gpus: 0, .. } => {
            "is not available: the NVIDIA driver finds no GPU (is it hidden by CUDA_VISIBLE_DEVICES?); use cpu".to_owned()
        }
        DriverFacts { gpus, .. } => {
            format!("is not available: the NVIDIA driver finds {gpus} GPUs, and libtorch can use none of them")
        }
    }
}

/// Why the first work on a GPU failed; `message` is libtorch's.
pub(crate) fn why_unusable(facts: DriverFacts, message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let says = |text: &str| message.contains(text);
    if says("no kernel image") || says("invalid device function") {
        let DriverFacts { capability, .. } = facts;
        let card = match capability {
            0 => "unknown compute capability".to_owned(),
            known => format!("compute capability {}.{}", known / 10, known % 10),
        };
        return format!(
            "cannot be used: libtorch has no kernels for this card ({card}); use another card, or cpu"
        );
    }
    if says("driver version is insufficient") || says("driver on your system is too old") {
        return why_none(DriverFacts { is_there: true, gpus: 1, ..facts }, &CudaLibrary::Loaded);
    }
    if says("busy or unavailable") || says("exclusive") {
        return "is busy: another process has it for itself (its compute mode is exclusive); wait for it, or use another card"
            .to_owned();
    }
    if says("out of memory") {
        return "is full: other processes use all of its memory; wait for them, or use another card"
            .to_owned();
    }
    format!("cannot be used: {first}")
}

fn version(cuda: i64) -> String {
    format!("{}.{}", cuda / 1000, cuda % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: DriverFacts = DriverFacts { is_there: true, cuda: 13_000, gpus: 1, capability: 121 };

    #[test]
    fn a_cuda_library_is_loaded_missing_or_refused() {
        let missing = "libtorch_cuda.so: cannot open shared object file: No such file or directory";
        let other = "libcudart.so.13: cannot open shared object file: No such file or directory";
        assert_eq!((of_message(""), of_message(missing)), (CudaLibrary::Loaded, CudaLibrary::Missing));
        assert_eq!(of_message(other), CudaLibrary::Refused(other.to_owned()));
        let has_it = std::path::Path::new(env!("LIBTORCH")).join("lib/libtorch_cuda.so").exists();
        assert_eq!(*cuda_library(), if has_it { CudaLibrary::Loaded } else { CudaLibrary::Missing });
    }

    #[test]
    fn a_gpu_that_is_not_found_has_its_reason_in_one_line() {
        let none = DriverFacts::default();
        let old = DriverFacts { cuda: 12_040, ..HERE };
        let hidden = DriverFacts { gpus: 0, ..HERE };
        let (loaded, refused) = (CudaLibrary::Loaded, CudaLibrary::Refused("no libcudart".to_owned()));
        for (facts, library, expected) in [
            (none, &CudaLibrary::Missing, "libtorch is built without CUDA"),
            (none, &refused, "CUDA library cannot be loaded: no libcudart"),
            (none, &loaded, "no NVIDIA driver is installed"),
            (
                old,
                &loaded,
                "its driver is too old, it supports CUDA 12.4 and libtorch needs CUDA 13.0; update the driver",
            ),
            (hidden, &loaded, "CUDA_VISIBLE_DEVICES"),
            (HERE, &loaded, "finds 1 GPUs, and libtorch can use none"),
        ] {
            let text = why_none(facts, library);
            assert!(text.contains(expected) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_gpu_that_fails_at_its_first_work_has_its_reason_in_one_line() {
        let cuda = |text: &str| {
            format!("CUDA error: {text}\nCUDA kernel errors might be reported later\n at x.cpp:1")
        };
        for (message, expected) in [
            (
                cuda("no kernel image is available for execution on the device"),
                "libtorch has no kernels for this card (compute capability 12.1)",
            ),
            (cuda("CUDA driver version is insufficient for CUDA runtime version"), "its driver is too old"),
            (cuda("all CUDA-capable devices are busy or unavailable"), "is busy: another process has it"),
            (cuda("out of memory"), "is full: other processes use all of its memory"),
            (
                cuda("an illegal memory access was encountered"),
                "cannot be used: CUDA error: an illegal memory access",
            ),
        ] {
            let facts = if expected.contains("old") { DriverFacts { cuda: 11_080, ..HERE } } else { HERE };
            let text = why_unusable(facts, &message);
            assert!(text.contains(expected) && !text.contains('\n'), "{text}");
        }
        let unknown = why_unusable(DriverFacts::default(), "no kernel image is available");
        assert!(unknown.contains("unknown compute capability"), "{unknown}");
    }

    #[test]
    fn the_driver_is_asked_only_about_gpus() {
        assert_eq!(driver_facts(Device::Cpu), DriverFacts::default());
        let facts = driver_facts(Device::Cuda(0));
        assert!(facts.is_there || facts == DriverFacts::default(), "{facts:?}");
        assert_eq!(facts.gpus > 0, facts.capability > 0, "{facts:?}");
    }
}
