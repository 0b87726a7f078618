//! Memory of a piece of work, by the kernel's count, in a process that does nothing else.

use std::fs;

/// Most bytes by which the process grows during the work.
pub fn grown(work: impl FnOnce()) -> u64 {
    // Resets the peak to the resident bytes.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let before = status("VmRSS:");
    work();
    peak().saturating_sub(before)
}

/// Peak memory of the process, in bytes.
pub fn peak() -> u64 {
    status("VmHWM:")
}

fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a system with /proc");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of this name");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1_024
}
