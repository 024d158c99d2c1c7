//! Memory of this process as reported by the kernel (Linux: `/proc/self/status`).

use std::{fs, io};

/// Resident memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessMemory {
    /// KiB now.
    pub resident: u64,
    /// Peak since the process started, in KiB.
    pub peak: u64,
}

/// The memory of this process.
///
/// # Errors
/// If the kernel does not report it, as on systems other than Linux.
pub fn process_memory() -> io::Result<ProcessMemory> {
    let path = "/proc/self/status";
    let no_fields = || io::Error::other(format!("{path} holds no VmRSS and VmHWM in kB"));
    parse(&fs::read_to_string(path)?).ok_or_else(no_fields)
}

fn parse(status: &str) -> Option<ProcessMemory> {
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(ProcessMemory { resident: field("VmRSS")?, peak: field("VmHWM")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_fields_are_read() {
        let status = "Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t  1234 kB\nVmRSS:\t   567 kB\n";
        assert_eq!(parse(status), Some(ProcessMemory { resident: 567, peak: 1234 }));
    }

    #[test]
    fn other_texts_are_refused() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("VmHWM:\t12 kB\n"), None);
        assert_eq!(parse("VmHWM:\t12 kB\nVmRSS:\t12 MB\n"), None);
    }

    #[test]
    fn the_peak_is_at_least_the_resident_memory() {
        let memory = process_memory().unwrap();
        assert!(memory.peak >= memory.resident && memory.resident > 0);
    }
}
