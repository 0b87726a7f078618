//! Memory of this process, as the kernel counts it.

/// Memory of this process in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// Resident now.
    pub(super) now: u64,
    /// Resident at most, so far.
    pub(super) peak: u64,
}

impl Memory {
    /// `None`: this system does not say.
    pub(super) fn now() -> Option<Self> {
        Self::read(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn read(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse().ok()
        };
        Some(Self { now: field("VmRSS:")?, peak: field("VmHWM:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_figures_are_read_from_what_the_kernel_prints() {
        let status = "Name:\tit\nVmHWM:\t   12344 kB\nVmRSS:\t    9000 kB\nThreads:\t3\n";
        assert_eq!(Memory::read(status), Some(Memory { now: 9_000, peak: 12_344 }));
        assert_eq!(Memory::read("Name:\tit\n"), None);
    }
}
