//! Problems of a server, as its web page shows them.

use crate::top::figures::{Head, text};
use crate::top::numbers;
use crate::top::reading::{Reading, Row};

/// Seconds of a total delay from which on an engine doesn't keep up, as on the web page.
const DELAY_MAX: f64 = 10.0;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something does not run.
    Error,
    /// Something is late, or fails in part.
    Warning,
    /// Something waits for the user.
    Note,
}

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub level: Level,
    /// The object and the reason: `source "clicks" is restarting: refused`.
    pub text: String,
}

/// Returns the level of a status that is a problem, and its verb.
pub fn level(status: &str) -> Option<(Level, &'static str)> {
    Some(match status {
        "failed" => (Level::Error, "failed"),
        "suspended" => (Level::Error, "is suspended"),
        "restarting" => (Level::Warning, "is restarting"),
        "retrying" => (Level::Warning, "is retried"),
        "behind" => (Level::Warning, "is behind"),
        "starting" => (Level::Note, "is starting"),
        "paused" => (Level::Note, "is paused"),
        _ => return None,
    })
}

/// Returns the problems, the worst first.
pub fn problems(reading: &Reading, head: &Head) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut add = |level, text: String| found.push(Problem { level, text });
    if let Some(text) = lateness(reading, head) {
        add(Level::Warning, text);
    }
    if let Some(reason) = reading.facts.get("memory_reason") {
        add(Level::Warning, format!("memory_limit: {reason}"));
    }
    if let Some(reason) = reading.facts.get("checkpoint_reason") {
        add(Level::Error, format!("checkpoint: {reason}"));
    }
    for (kind, rows) in [("source", &reading.sources), ("", &reading.queries), ("sink", &reading.sinks)] {
        for row in rows {
            let kind = row.get("kind").map_or(kind, String::as_str);
            let name = text(row, "name");
            if let Some((level, text)) = of_status(row) {
                add(level, format!("{kind} \"{name}\" {text}"));
            }
            let metric =
                if kind == "source" { "millstream_source_bad_rows_total" } else { "millstream_query_errors" };
            let Some(count) = reading.metrics.get(metric, &name).filter(|count| *count > 0.0) else {
                continue;
            };
            if kind == "source" {
                add(Level::Note, format!("source \"{name}\": {count} records could not be decoded"));
            } else if kind != "sink" {
                add(Level::Warning, format!("{kind} \"{name}\" fails for {count} rows"));
            }
        }
    }
    found.sort_by_key(|problem| problem.level);
    found
}

/// Returns the problem of a status, with its reason.
fn of_status(row: &Row) -> Option<(Level, String)> {
    let (level, verb) = level(&text(row, "status"))?;
    let reason = row.get("reason").map_or_else(String::new, |reason| format!(": {reason}"));
    Some((level, format!("{verb}{reason}")))
}

/// Returns the reason why epochs don't keep up with their input, if they don't.
fn lateness(reading: &Reading, head: &Head) -> Option<String> {
    if let (Some(processing), Some(interval)) = (head.processing, head.interval)
        && processing > interval
    {
        let (processing, interval) = (numbers::time(Some(processing)), numbers::time(Some(interval)));
        return Some(format!(
            "epochs take {processing} on average, and batch_interval is {interval}: EXPLAIN WHY says why"
        ));
    }
    let delay = reading.metrics.get("millstream_epoch_total_delay_max_seconds", "")?;
    let shown = numbers::time(Some(delay));
    (delay > DELAY_MAX).then(|| format!("an epoch ended {shown} after it was due: EXPLAIN WHY says why"))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::top::figures::Figures;
    use crate::top::figures::tests::{reading, row};

    fn texts(reading: &Reading, head: &Head) -> Vec<String> {
        problems(reading, head).into_iter().map(|problem| problem.text).collect()
    }

    #[test]
    fn an_engine_without_trouble_has_no_problem() {
        let reading = reading(Instant::now(), &[]);
        assert_eq!(Figures::between(None, &reading).problems, []);
    }

    #[test]
    fn each_problem_names_its_object_the_worst_first() {
        let metrics = [
            ("millstream_source_bad_rows_total", r#"{"source": "clicks"}"#, 3.0),
            ("millstream_query_errors", r#"{"query": "per_page"}"#, 2.0),
        ];
        let mut reading = reading(Instant::now(), &metrics);
        reading.sinks[0] = row(&[("name", "out"), ("status", "failed"), ("reason", "refused")]);
        reading.sources.push(row(&[("name", "b"), ("status", "restarting"), ("reason", "gone")]));
        reading.queries.push(row(&[("kind", "stream"), ("name", "q"), ("status", "suspended")]));
        reading.facts.extend([
            ("memory_reason".into(), "too much".into()),
            ("checkpoint_reason".into(), "full".into()),
        ]);
        let head = Head { processing: Some(0.5), interval: Some(0.1), ..Head::default() };
        assert_eq!(
            texts(&reading, &head),
            [
                "checkpoint: full",
                "stream \"q\" is suspended",
                "sink \"out\" failed: refused",
                "epochs take 500.0 ms on average, and batch_interval is 100.0 ms: EXPLAIN WHY says why",
                "memory_limit: too much",
                "source \"b\" is restarting: gone",
                "materialized view \"per_page\" fails for 2 rows",
                "source \"clicks\": 3 records could not be decoded",
            ]
        );
    }

    #[test]
    fn a_long_delay_is_a_problem_without_an_interval() {
        let late = reading(Instant::now(), &[("millstream_epoch_total_delay_max_seconds", "{}", 12.0)]);
        assert_eq!(
            texts(&late, &Head::default()),
            ["an epoch ended 12.0 s after it was due: EXPLAIN WHY says why"]
        );
        let punctual = reading(Instant::now(), &[("millstream_epoch_total_delay_max_seconds", "{}", 9.0)]);
        assert!(texts(&punctual, &Head::default()).is_empty());
    }
}
