//! Facts about this process from the operating system.

/// Returns the memory of the process that is in RAM, in bytes; `None` where the system doesn't say (only Linux does).
pub(crate) fn resident_bytes() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_says_how_large_a_process_is() {
        assert_eq!(parse("Name:\tx\nVmRSS:\t   2048 kB\nThreads:\t4\n"), Some(2 << 20));
        assert_eq!(parse("Name:\tx\n"), None);
        assert_eq!(parse("VmRSS:\tmany\n"), None);
    }
}
