//! How much memory a piece of work takes, by the kernel's count, in a process that does nothing else.

use std::fs;

/// By how many bytes the work makes the process grow at most.
pub fn grown(work: impl FnOnce()) -> u64 {
    // Makes the peak start anew from what is resident.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let before = status("VmRSS:");
    work();
    peak().saturating_sub(before)
}

/// The most that the process ever held, in bytes.
pub fn peak() -> u64 {
    status("VmHWM:")
}

fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a system with /proc");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of this name");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1_024
}
