//! How much memory the server has had.

use std::fs;

/// The most memory that this process has had, in MiB (proc(5), `VmHWM`): it must not grow with what is transferred.
pub fn peak_mib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = size.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib >> 10)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_has_some_memory() {
        let peak = super::peak_mib().unwrap();
        assert!((1..1 << 20).contains(&peak), "{peak}");
    }
}
