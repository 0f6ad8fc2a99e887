//! The time that trials take: a limit, and the slowest ones. A trial that hangs ends the test program with its name and
//! the state of all threads, rather than keeping it silent until something else ends it.
//!
//! Panics in the engine and in its libraries, which a statement reports as an error, are counted: a trial that expects an error
//! would pass.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

/// The longest trial takes about two minutes on two cores.
const LIMIT: Duration = Duration::from_secs(1200);

/// The variable with another limit in seconds, for trials with many seeds.
const VARIABLE: &str = "MILLSTREAM_TRIAL_SECONDS";

/// How many of the slowest trials are listed.
const LISTED: usize = 20;

/// The least time of a trial that is listed.
const LISTED_FROM: Duration = Duration::from_secs(1);

static RUNNING: LazyLock<Mutex<BTreeMap<String, Instant>>> = LazyLock::new(Mutex::default);

/// The places of panics outside of the trials, with their numbers.
static PANICS: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// The trials that have ended, with their durations.
static ENDED: Mutex<Vec<(String, Duration)>> = Mutex::new(Vec::new());

/// Returns a trial that the watchdog watches.
pub fn trial(name: impl Into<String>, run: impl FnOnce() -> Result<(), String> + Send + 'static) -> Trial {
    let name = name.into();
    let running = Running(name.clone());
    Trial::test(name, move || {
        lock().insert(running.0.clone(), Instant::now());
        run().map_err(Failed::from)
    })
}

/// Removes a trial from the running ones on drop, also if it panics.
struct Running(String);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(begun) = lock().remove(&self.0) {
            let took = (std::mem::take(&mut self.0), begun.elapsed());
            ENDED.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        }
    }
}

/// Notes panics from now on, except for those of the trials' own code, which are deliberate or fail their trial.
pub fn note_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
        if let Some(place) = place.filter(|place| !place.starts_with("crates/testkit/")) {
            *PANICS.lock().unwrap_or_else(PoisonError::into_inner).entry(place).or_default() += 1;
        }
        before(info);
    }));
}

/// Returns the places of the panics that were noted; none if there were none.
pub fn panics() -> Option<String> {
    let all = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = all.iter().map(|(place, count)| format!("  {count} at {place}\n"));
    (!all.is_empty()).then(|| {
        format!("panics outside of the trials, each of which is a defect:\n{}", lines.collect::<String>())
    })
}

/// Returns the slowest trials, and the time of each group of trials, which is the part of a name before `::`. `None`
/// if no trial has ended.
pub fn slowest() -> Option<String> {
    let ended = std::mem::take(&mut *ENDED.lock().unwrap_or_else(PoisonError::into_inner));
    (!ended.is_empty()).then(|| listed(ended))
}

fn listed(mut ended: Vec<(String, Duration)>) -> String {
    ended.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
    let mut groups: BTreeMap<&str, (usize, Duration)> = BTreeMap::new();
    for (name, took) in &ended {
        let group = groups.entry(name.split("::").next().unwrap_or(name)).or_default();
        *group = (group.0 + 1, group.1 + *took);
    }
    let mut text = String::from("the slowest trials:\n");
    for (name, took) in ended.iter().take(LISTED).take_while(|(_, took)| *took >= LISTED_FROM) {
        let _ = writeln!(text, "{:>8.1} s  {name}", took.as_secs_f64());
    }
    text.push_str("the time of all trials of a group, of which several run side by side:\n");
    for (group, (count, took)) in groups {
        let _ = writeln!(text, "{:>8.1} s  {group} ({count})", took.as_secs_f64());
    }
    text
}

fn lock() -> std::sync::MutexGuard<'static, BTreeMap<String, Instant>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the program with a report once a trial exceeds the limit.
pub fn watch() {
    let seconds = std::env::var(VARIABLE).ok().and_then(|seconds| seconds.parse().ok());
    let limit = seconds.map_or(LIMIT, Duration::from_secs);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(5));
            if let Some(report) = report(&lock(), Instant::now(), limit) {
                eprintln!("{report}\nthreads, with the CPU time that each has used:\n{}", threads());
                std::process::exit(101);
            }
        }
    });
}

/// Returns a report if a trial has run for longer than the limit.
fn report(running: &BTreeMap<String, Instant>, now: Instant, limit: Duration) -> Option<String> {
    let seconds = |begun: &Instant| now.duration_since(*begun).as_secs();
    running.values().find(|begun| now.duration_since(**begun) > limit)?;
    let lines = running.iter().map(|(name, begun)| format!("trial {name} has run for {} s", seconds(begun)));
    let lines = lines.collect::<Vec<_>>().join("\n");
    Some(format!("{lines}\nat most {} s are allowed; {VARIABLE} sets another limit", limit.as_secs()))
}

/// Returns the threads of this program by name, with their state and CPU time in clock ticks; nothing but on Linux.
fn threads() -> String {
    let mut all = String::new();
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return all };
    for task in tasks.flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        // The name is in parentheses, and may contain anything.
        let (Some(from), Some(to)) = (stat.find('('), stat.rfind(')')) else { continue };
        let fields: Vec<&str> = stat[to + 1..].split_whitespace().collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or_default();
        let _ = writeln!(all, "{} {} {} + {} ticks", &stat[from + 1..to], field(0), field(11), field(12));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_that_run_for_too_long_are_told_with_all_others() {
        let now = Instant::now();
        let running = BTreeMap::from([("a".to_string(), now), ("b".to_string(), now)]);
        assert_eq!(report(&running, now, Duration::from_secs(9)), None);
        let told = report(&running, now + Duration::from_secs(10), Duration::from_secs(9)).unwrap();
        assert!(
            told.starts_with("trial a has run for 10 s\ntrial b has run for 10 s\nat most 9 s"),
            "{told}"
        );
    }

    #[test]
    fn the_slowest_trials_and_groups_are_listed() {
        let seconds = |name: &str, seconds| (name.to_string(), Duration::from_secs(seconds));
        let text = listed(vec![seconds("slt::a", 1), seconds("tidy::b", 4), seconds("slt::c", 0)]);
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        assert_eq!(lines[1..3], ["4.0 s  tidy::b", "1.0 s  slt::a"]);
        assert_eq!(lines[4..], ["1.0 s  slt (2)", "4.0 s  tidy (1)"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_are_told_with_their_time() {
        assert!(threads().lines().all(|line| line.ends_with(" ticks")));
        assert!(threads().lines().count() > 1);
    }
}
