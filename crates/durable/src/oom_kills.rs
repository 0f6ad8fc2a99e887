//! How many processes the system has killed for lack of memory: by this a start learns what the process before it died of.

use serde_json::{Value, json};

/// What the system counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OomKills {
    /// Of the control group that this process is in: what tells it from others, and the count.
    pub cgroup: Option<(String, u64)>,
    /// Of the whole machine.
    pub machine: Option<u64>,
}

impl OomKills {
    /// What Linux says now; none elsewhere.
    pub fn now() -> Option<OomKills> {
        let machine = std::fs::read_to_string("/proc/vmstat").ok().and_then(|text| number(&text, "oom_kill"));
        let cgroup = cgroup();
        (machine.is_some() || cgroup.is_some()).then_some(OomKills { cgroup, machine })
    }

    /// Whether a process was killed between two counts: one of the same group, or, where that is another one by now, any.
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

/// The group of version 2 that this process is in, and how many of it were killed.
fn cgroup() -> Option<(String, u64)> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = format!("/sys/fs/cgroup/{path}");
    let events = std::fs::read_to_string(format!("{folder}/memory.events")).ok()?;
    Some((format!("{path}#{}", inode(&folder)), number(&events, "oom_kill")?))
}

/// A container that is started again has a group of the same path, but not the same one.
#[cfg(unix)]
fn inode(folder: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(folder).map_or(0, |metadata| metadata.ino())
}

#[cfg(not(unix))]
fn inode(_: &str) -> u64 {
    0
}

/// The number in the line of this name.
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
