//! Reports the progress of a run on standard error: a line with the state and the time left, and any
//! problems.
//!
//! The line is shown only on terminals, never in logs and pipes.

use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

use console::{Term, truncate_str};
use millstream::{Announced, Engine, Progress};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::logging::{self, Message};
use crate::page::Page;

/// Minimum duration of work that shows a line.
const PATIENCE: Duration = Duration::from_millis(500);
const REFRESH: Duration = Duration::from_millis(200);
/// Weight of the newest measurement in the displayed rate; the rest is the previous rate.
const SMOOTHING: f64 = 0.3;

/// Watches an engine while waiting for some work.
pub struct Watch {
    page: Page,
    has_line: bool,
    start: Instant,
    rate: Rate,
    told: Announced,
    /// The number of the present statement in a script, and the number of all.
    statement: Option<(usize, usize)>,
}

/// Rows a second, smoothed.
struct Rate {
    at: Instant,
    rows: u64,
    per_second: Option<f64>,
}

impl Watch {
    /// Creates a watch. Its line is shown below `page` if wanted and standard error is a terminal.
    pub fn new(page: Page, has_line: bool) -> Self {
        let has_line = has_line && std::io::stderr().is_terminal();
        let start = Instant::now();
        let rate = Rate { at: start, rows: 0, per_second: None };
        Watch { page, has_line, start, rate, told: Announced::default(), statement: None }
    }

    /// Notes that the next work is statement `number` of `count`.
    pub fn enter(&mut self, number: usize, count: usize) {
        self.statement = Some((number, count));
    }

    /// Waits for `work`, and reports the progress of `engine` meanwhile.
    pub async fn during<T>(&mut self, engine: &Engine, work: impl Future<Output = T>) -> T {
        let mut ticks = interval_at(Instant::now() + PATIENCE, REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let begin = Instant::now();
        let Progress { share: first, rows, .. } = engine.progress();
        if begin - self.rate.at > 2 * REFRESH {
            // The rows since the previous work were not measured.
            self.rate = Rate { at: begin, rows, per_second: None };
        }
        let mut line = None;
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                now = ticks.tick() => {
                    let progress = engine.progress();
                    self.tell_problems(&progress);
                    if self.has_line {
                        let rate = self.rate.measure(progress.rows, now);
                        let mut parts = statement(self.statement, now - begin);
                        parts.extend(message(&progress, rate, time_left(&progress, first, now - begin)));
                        line.get_or_insert_with(|| self.page.line()).show(one_line(&parts));
                    }
                }
            }
        }
    }

    /// Reports the total, if there is a line.
    pub fn tell_end(&self, progress: &Progress) {
        if self.has_line && progress.rows > 0 {
            let time = self.start.elapsed();
            eprintln!("{}", summary(progress, time));
        }
    }

    /// Reports the problems since the last call; each problem once, for as long as it lasts.
    pub fn tell_problems(&mut self, progress: &Progress) {
        let all = progress.problems.iter().chain(&progress.warnings).cloned();
        for problem in self.told.news(all.collect()) {
            self.page.aside(|| logging::tell(Message::Warning(&problem)));
        }
    }
}

impl Rate {
    fn measure(&mut self, rows: u64, now: Instant) -> f64 {
        let seconds = now.duration_since(self.at).as_secs_f64().max(1e-3);
        let newest = rows.saturating_sub(self.rows) as f64 / seconds;
        let shown = self.per_second.map_or(newest, |before| before + SMOOTHING * (newest - before));
        *self = Rate { at: now, rows, per_second: Some(shown) };
        shown
    }
}

/// Returns the number of the running statement, and its time.
fn statement(statement: Option<(usize, usize)>, time: Duration) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some((number, count)) = statement.filter(|(_, count)| *count > 1) {
        parts.push(format!("statement {number} of {count}"));
    }
    if time >= Duration::from_secs(1) {
        parts.push(format!("{} s", time.as_secs()));
    }
    parts
}

/// Estimates the time until everything is read, from the progress since the share `first`.
fn time_left(progress: &Progress, first: Option<f64>, time: Duration) -> Option<Duration> {
    let (share, seconds) = (progress.share?, time.as_secs_f64());
    let per_second = (share - first.unwrap_or(0.0)) / seconds.max(1e-3);
    let left = Duration::try_from_secs_f64((1.0 - share) / per_second).ok()?;
    // An estimate from a very short time is useless.
    (share < 1.0 && per_second > 0.0 && left < Duration::from_secs(1_000_000)).then_some(left)
}

fn message(progress: &Progress, rate: f64, left: Option<Duration>) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(share) = progress.share {
        parts.push(format!("{:.0}% read", (share * 100.0).floor()));
    }
    parts.extend(left.map(|left| format!("{} left", readable(left))));
    if progress.rows > 0 {
        parts.push(counted(progress.rows, "row"));
        parts.push(format!("{} rows/s", grouped(rate.round() as u64)));
    }
    if progress.epochs > 0 {
        parts.push(counted(progress.epochs, "epoch"));
    }
    if progress.bad_rows > 0 {
        parts.push(counted(progress.bad_rows, "bad row"));
    }
    if progress.sources_open > 0 {
        let state = if progress.sources_following > 0 { "followed (Ctrl-C ends)" } else { "open" };
        parts.push(format!("{} {state}", counted(progress.sources_open as u64, "source")));
    }
    parts
}

/// Joins the parts in a line that fits the terminal.
fn one_line(parts: &[String]) -> String {
    // Leave room at the end, where the terminal may echo ^C.
    let width = usize::from(Term::stderr().size().1).saturating_sub(6);
    truncate_str(&parts.join(" · "), width, "…").into_owned()
}

/// Returns an approximate duration in words: `8 s`, `3 min`, `2 h 5 min`.
fn readable(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil() as u64;
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5_999 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

fn summary(progress: &Progress, time: Duration) -> String {
    let (seconds, rows) = (time.as_secs_f64(), counted(progress.rows, "row"));
    let rate = grouped((progress.rows as f64 / seconds.max(1e-3)).round() as u64);
    format!("{rows} in {}, {seconds:.2} s ({rate} rows/s)", counted(progress.epochs, "epoch"))
}

/// Returns `1 row`, `1,234 rows`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// Returns the digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(counted(0, "row"), "0 rows");
        assert_eq!(counted(123_456, "row"), "123,456 rows");
        assert_eq!(counted(1_234_567, "bad row"), "1,234,567 bad rows");
    }

    #[test]
    fn a_line_says_what_matters() {
        let line = |progress: &Progress, rate, left| message(progress, rate, left).join(" · ");
        let mut progress = Progress { rows: 1_200, epochs: 1, ..Progress::default() };
        assert_eq!(line(&progress, 99.6, None), "1,200 rows · 100 rows/s · 1 epoch");
        progress = Progress { bad_rows: 2, sources_open: 1, share: Some(0.258), ..progress };
        let left = Some(Duration::from_millis(7_100));
        assert_eq!(
            line(&progress, 0.0, left),
            "25% read · 8 s left · 1,200 rows · 0 rows/s · 1 epoch · 2 bad rows · 1 source open"
        );
        progress =
            Progress { rows: 1, epochs: 1, sources_open: 1, sources_following: 1, ..Progress::default() };
        assert_eq!(
            line(&progress, 1.0, None),
            "1 row · 1 rows/s · 1 epoch · 1 source followed (Ctrl-C ends)"
        );
        assert_eq!(statement(Some((3, 12)), Duration::from_secs(61)), ["statement 3 of 12", "61 s"]);
        assert_eq!(statement(Some((1, 1)), Duration::from_secs(2)), ["2 s"]);
    }

    #[test]
    fn the_time_left_follows_from_the_share() {
        let at = |share| Progress { share, ..Progress::default() };
        let seconds = Duration::from_secs;
        assert_eq!(time_left(&at(Some(0.75)), Some(0.5), seconds(10)), Some(seconds(10)));
        assert_eq!(time_left(&at(Some(0.5)), None, seconds(3)), Some(seconds(3)));
        for (share, first) in [(None, None), (Some(1.0), Some(0.5)), (Some(0.5), Some(0.5))] {
            assert_eq!(time_left(&at(share), first, seconds(1)), None);
        }
        assert_eq!(readable(seconds(99)), "99 s");
        assert_eq!(readable(seconds(121)), "3 min");
        assert_eq!(readable(seconds(7_500)), "2 h 5 min");
    }

    #[test]
    fn the_end_sums_up() {
        let progress = Progress { rows: 3_000, epochs: 2, ..Progress::default() };
        assert_eq!(
            summary(&progress, Duration::from_millis(1_500)),
            "3,000 rows in 2 epochs, 1.50 s (2,000 rows/s)"
        );
    }

    #[test]
    fn the_rate_follows_slowly() {
        let start = Instant::now();
        let mut rate = Rate { at: start, rows: 0, per_second: None };
        assert_eq!(rate.measure(1_000, start + Duration::from_secs(1)), 1_000.0);
        assert_eq!(rate.measure(1_000, start + Duration::from_secs(2)), 700.0);
        assert_eq!(rate.measure(3_000, start + Duration::from_secs(3)), 1_090.0);
    }
}
