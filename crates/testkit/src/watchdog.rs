//! A time limit for trials. A trial that hangs ends the test program with its name and the state of all threads, rather
//! than keeping it silent until something else ends it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

/// The longest trial takes about two minutes on two cores.
const LIMIT: Duration = Duration::from_secs(1200);

/// The variable with another limit in seconds, for trials with many seeds.
const VARIABLE: &str = "MILLSTREAM_TRIAL_SECONDS";

static RUNNING: LazyLock<Mutex<BTreeMap<String, Instant>>> = LazyLock::new(Mutex::default);

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
        lock().remove(&self.0);
    }
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

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_are_told_with_their_time() {
        assert!(threads().lines().all(|line| line.ends_with(" ticks")));
        assert!(threads().lines().count() > 1);
    }
}
