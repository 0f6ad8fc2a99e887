//! The count of processes that the system killed for lack of memory. A start learns from it why the previous
//! process died.

use serde_json::{Value, json};

/// The system's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OomKills {
    /// The identity of this process's control group, and its counter.
    pub cgroup: Option<(String, u64)>,
    /// The counter of the whole machine.
    pub machine: Option<u64>,
}

impl OomKills {
    /// Reads the present counters from Linux; `None` on other systems.
    pub fn now() -> Option<OomKills> {
        let machine = std::fs::read_to_string("/proc/vmstat").ok().and_then(|text| number(&text, "oom_kill"));
        let cgroup = cgroup();
        (machine.is_some() || cgroup.is_some()).then_some(OomKills { cgroup, machine })
    }

    /// Returns true if a process was killed between two readings: in the same group, or, if the group has
    /// changed, anywhere on the machine.
    pub(crate) fn rose(then: Option<&OomKills>, now: Option<&OomKills>) -> bool {
        let (Some(then), Some(now)) = (then, now) else { return false };
        match (&then.cgroup, &now.cgroup) {
            (Some((one, before)), Some((other, after))) if one == other => after > before,
            _ => now.machine > then.machine && then.machine.is_some(),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({"cgroup": self.cgroup, "machine": self.machine})
    }

    pub(crate) fn of_json(value: &Value) -> Option<OomKills> {
        let cgroup =
            value.get("cgroup").and_then(|of| Some((of.get(0)?.as_str()?.to_string(), of.get(1)?.as_u64()?)));
        Some(OomKills { cgroup, machine: value.get("machine").and_then(Value::as_u64) })
    }
}

/// Returns the cgroup v2 group of this process, and its number of kills.
fn cgroup() -> Option<(String, u64)> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = format!("/sys/fs/cgroup/{path}");
    let events = std::fs::read_to_string(format!("{folder}/memory.events")).ok()?;
    Some((format!("{path}#{}", inode(&folder)), number(&events, "oom_kill")?))
}

/// Returns the inode of the group's folder. A restarted container has a different group of the same path.
#[cfg(unix)]
fn inode(folder: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(folder).map_or(0, |metadata| metadata.ino())
}

#[cfg(not(unix))]
fn inode(_: &str) -> u64 {
    0
}

/// Returns the number in the line of this name.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_by_its_whole_name() {
        assert_eq!(number("oom 3\noom_kill 2\noom_group_kill 1\n", "oom_kill"), Some(2));
        assert_eq!(number("oom_killer 2\n", "oom_kill"), None);
    }

    #[test]
    fn counts_are_noted() {
        let kills = OomKills { cgroup: Some(("a#1".into(), 2)), machine: Some(3) };
        assert_eq!(OomKills::of_json(&kills.to_json()), Some(kills));
        let none = OomKills::default();
        assert_eq!(OomKills::of_json(&none.to_json()), Some(none));
    }
}
