//! Identifies the processor of this machine and the instruction set that libtorch selects on it.

use thinet_report::records::CpuIdentity;

/// The processor of this machine. Unknown entries are empty.
#[must_use]
pub fn cpu_identity() -> CpuIdentity {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    CpuIdentity {
        instruction_set: instruction_set(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        ..described(&text)
    }
}

/// The first processor of a `/proc/cpuinfo`.
fn described(text: &str) -> CpuIdentity {
    let field = |names: &[&str]| {
        let named = |line: &str| {
            let (name, value) = line.split_once(':')?;
            names.contains(&name.trim()).then(|| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        text.lines().find_map(named)
    };
    let revision = field(&["CPU revision"]).map(|revision| format!("p{revision}")).unwrap_or_default();
    CpuIdentity {
        vendor: field(&["vendor_id", "CPU implementer"]),
        name: field(&["model name"]),
        family: field(&["cpu family", "CPU architecture"]),
        model: field(&["model", "CPU part"]),
        stepping: field(&["stepping"]).or_else(|| Some(field(&["CPU variant"])? + &revision)),
        instruction_set: String::new(),
        cores: 0,
    }
}

/// The instruction set of libtorch's own kernels (`avx512`, `avx2` or `default`), as libtorch selects it from the processor
/// and `ATEN_CPU_CAPABILITY`, followed by the limit that `ONEDNN_MAX_CPU_ISA` sets for oneDNN's kernels.
#[must_use]
pub fn instruction_set() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    named(capability(), variable("ATEN_CPU_CAPABILITY"), variable("ONEDNN_MAX_CPU_ISA"))
}

/// The processor's capability by libtorch's rule.
#[cfg(target_arch = "x86_64")]
fn capability() -> &'static str {
    use std::arch::is_x86_feature_detected as has;
    if has!("avx512vl") && has!("avx512bw") && has!("avx512dq") && has!("fma") {
        "avx512"
    } else if has!("avx2") && has!("fma") {
        "avx2"
    } else {
        "default"
    }
}

/// On other architectures the kernels are selected when libtorch is built.
#[cfg(not(target_arch = "x86_64"))]
fn capability() -> &'static str {
    "default"
}

/// Whether libtorch has kernels for products in bfloat16 on this processor, by its own rule. Without them it computes element by element.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_bf16_kernels() -> bool {
    capability() == "avx512" || std::arch::is_x86_feature_detected!("avxneconvert")
}

/// Not known of other architectures.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn has_bf16_kernels() -> bool {
    true
}

fn named(capability: &str, asked: Option<String>, onednn: Option<String>) -> String {
    // libtorch ignores other values.
    let asked = asked.filter(|word| ["avx512", "avx2", "default"].contains(&word.as_str()));
    let used = asked.unwrap_or_else(|| capability.to_owned());
    match onednn {
        Some(limit) => format!("{used} (oneDNN up to {})", limit.to_uppercase()),
        None => used,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILAN: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\n\
                         model name\t: AMD EPYC\nstepping\t: 1\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nmodel\t\t: 9\n";

    #[test]
    fn two_generations_of_one_name_are_two_processors() {
        let milan = described(MILAN);
        assert_eq!(milan.name.as_deref(), Some("AMD EPYC"));
        let numbers = [&milan.vendor, &milan.family, &milan.model, &milan.stepping].map(|v| v.as_deref());
        assert_eq!(numbers, [Some("AuthenticAMD"), Some("25"), Some("1"), Some("1")]);
        let genoa = described(&MILAN.replacen("model\t\t: 1", "model\t\t: 17", 1));
        assert_eq!(genoa.name, milan.name);
        assert_ne!(genoa.key(), milan.key());
    }

    #[test]
    fn arm_has_the_same_fields_under_other_names() {
        let text = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\n\
                    CPU part\t: 0xd0c\nCPU revision\t: 1\n";
        let arm = described(text);
        let numbers = [&arm.vendor, &arm.family, &arm.model, &arm.stepping].map(|v| v.as_deref());
        assert_eq!(numbers, [Some("0x41"), Some("8"), Some("0xd0c"), Some("0x3p1")]);
        let unknown = CpuIdentity { instruction_set: "default".to_owned(), cores: 1, ..described("") };
        assert_eq!(unknown.describe(), "processor unknown, default, 1 core");
    }

    #[test]
    fn variables_that_limit_the_kernels_are_reported() {
        let text = |word: &str| Some(word.to_owned());
        assert_eq!(named("avx512", None, None), "avx512");
        assert_eq!(named("avx512", text("avx2"), None), "avx2");
        assert_eq!(named("avx512", text("AVX2"), None), "avx512", "libtorch accepts lower case only");
        assert_eq!(named("avx2", None, text("sse41")), "avx2 (oneDNN up to SSE41)");
        assert!(!instruction_set().is_empty());
    }
}
