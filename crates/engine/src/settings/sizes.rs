//! Sizes in bytes, and the memory of the machine.

use std::fs;

use millstream_sql::{Error, Result};

/// The default of `memory_limit`, a phrase instead of a value.
pub(super) const MOST_MEMORY: &str = "60 % of the machine's memory";

/// Returns the default of `memory_limit`, or `None` if the size of memory is unknown.
pub(super) fn most_memory() -> Option<usize> {
    // In a container, its limit counts.
    let of_group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let of_group = of_group.and_then(|text| text.trim().parse::<usize>().ok());
    let of_machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let all = of_group.into_iter().chain(of_machine).min()?;
    Some(all / 10 * 6)
}

/// Returns the machine's memory in bytes from `/proc/meminfo`, which counts in kibibytes.
fn total(told: &str) -> Option<usize> {
    let line = told.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<usize>().ok()?.checked_mul(1024)
}

/// Parses a number of bytes, or a word that stands for `None`.
pub(super) fn size_or(word: &str, name: &str, value: &str) -> Result<Option<usize>> {
    if value.eq_ignore_ascii_case(word) { Ok(None) } else { size(name, value).map(Some) }
}

/// Parses bytes with or without a unit: `65536`, `64 KiB`, `16MB`.
pub(crate) fn size(name: &str, value: &str) -> Result<usize> {
    let text = value.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[digits..].trim() {
        "" | "b" => Some(1),
        "kib" | "kb" | "k" => Some(1 << 10),
        "mib" | "mb" | "m" => Some(1 << 20),
        "gib" | "gb" | "g" => Some(1 << 30),
        _ => None,
    };
    let bytes =
        text[..digits].parse::<usize>().ok().zip(factor).and_then(|(n, factor)| n.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
        Error::invalid(format!(
            "{name} is '{value}', but bytes were expected, such as 65536, '64 KiB' or '16 MiB'"
        ))
    })
}

/// Returns a number of bytes for people, in the units of the settings: `1.5 MB` are 1.5 times 2 to the 20.
pub(crate) fn bytes_text(bytes: usize) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_how_much_memory_it_has() {
        assert_eq!(total("MemTotal:       24576000 kB\nMemFree:  1 kB\n"), Some(24_576_000 << 10));
        assert_eq!(total("MemFree:  1 kB\n"), None);
        assert_eq!(total("MemTotal: much\n"), None);
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!((bytes_text(7).as_str(), bytes_text(3 << 19).as_str()), ("7 bytes", "1.5 MB"));
    }
}
