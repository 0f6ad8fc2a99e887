//! Conditions that need attention but are no failures: epochs that take longer than their interval, sources that have
//! become silent, watermarks that stand, queries with more state than expected. Each is logged when it begins and when it is over, and is a warning of the
//! engine's progress meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_sql::functions::quoted_ident;

use super::problem::literal;
use super::sources::Sources;
use super::watermarks::Watermarks;
use crate::metrics::History;
use crate::settings::{ClockKind, Pace, Settings, bytes_text, interval_text};

/// The time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// The time between two looks from which on the loop was busy with something. An idle loop looks every 10 seconds.
const BUSY: Duration = Duration::from_secs(15);

/// Conditions by their name and object.
type Raised = BTreeMap<(&'static str, Arc<str>), Alert>;

/// A condition that needs attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alert {
    pub(super) condition: &'static str,
    /// The kind of the object, as in `millstream.problems`.
    pub(super) kind: &'static str,
    /// The name of the object; `None` for the engine.
    pub(super) object: Option<Arc<str>>,
    /// The condition, without the object.
    pub(super) message: String,
    /// The statement that explains it.
    pub(super) statement: String,
    /// The condition as a sentence.
    text: String,
}

/// The conditions that hold, and what was last seen of sources.
#[derive(Debug, Default)]
pub(crate) struct Alerts {
    looked: Option<Instant>,
    raised: Raised,
    seen: BTreeMap<Arc<str>, Seen>,
}

/// A source as it was last seen.
#[derive(Debug)]
struct Seen {
    rows: u64,
    /// The time since which it has had this number of rows.
    rows_since: Instant,
    watermark: Option<i64>,
    /// The time since which it has had this watermark, and its number of rows then.
    watermark_since: (Instant, u64),
}

/// A source as it is now.
#[derive(Clone, Copy, Debug)]
struct Now {
    rows: u64,
    /// True if rows of it wait for an epoch.
    waits: bool,
    watermark: Option<i64>,
}

impl Alert {
    fn of_epochs(text: String) -> Alert {
        let (message, statement) = (text.clone(), "EXPLAIN WHY".into());
        Alert { condition: "behind", kind: "epochs", object: None, message, statement, text }
    }

    fn silent(name: &Arc<str>, long: &str) -> Alert {
        let message = format!("has had no rows for more than {long}");
        let text = format!(
            "source \"{name}\" {message}: SELECT * FROM millstream.source_partitions shows how far it was read"
        );
        Alert::of_source("silent", name, message, text)
    }

    fn standing(name: &Arc<str>, long: &str) -> Alert {
        let stands = format!("has stood for more than {long} although rows arrive");
        let text = format!(
            "the watermark of \"{name}\" {stands}: EXPLAIN WHY of a query that reads it names the partition that holds it \
             back"
        );
        Alert::of_source("watermark", name, format!("has a watermark that {stands}"), text)
    }

    fn large(name: &Arc<str>, bytes: usize, limit: usize) -> Alert {
        let statement = format!("EXPLAIN WHY {}", quoted_ident(name));
        let message =
            format!("keeps {} of state: warn_state_above is {}", bytes_text(bytes), bytes_text(limit));
        let text = format!("query \"{name}\" {message}; {statement} names the operator that keeps most");
        let object = Some(name.clone());
        Alert { condition: "state", kind: "query", object, message, statement, text }
    }

    fn of_source(condition: &'static str, name: &Arc<str>, message: String, text: String) -> Alert {
        let statement =
            format!("SELECT * FROM millstream.source_partitions WHERE source = {}", literal(name));
        Alert { condition, kind: "source", object: Some(name.clone()), message, statement, text }
    }
}

impl Alerts {
    /// Returns the conditions that hold.
    pub(super) fn all(&self) -> impl Iterator<Item = &Alert> {
        self.raised.values()
    }

    /// Returns the conditions that hold, as sentences.
    pub(super) fn texts(&self) -> impl Iterator<Item = String> {
        self.all().map(|alert| alert.text.clone())
    }

    /// Looks at the engine, at most once a second. `states`: the bytes of state of each query.
    pub(super) fn look(
        &mut self,
        now: Instant,
        settings: &Settings,
        sources: &Sources,
        watermarks: &Watermarks,
        states: impl FnOnce() -> Vec<(Arc<str>, usize)>,
        history: &History,
    ) {
        if self.looked.is_some_and(|looked| now.duration_since(looked) < LOOK) {
            return;
        }
        let gap = self.looked.map_or(Duration::ZERO, |looked| now.duration_since(looked));
        self.looked = Some(now);
        self.pass_over(gap);
        let mut found = BTreeMap::new();
        if settings.clock == ClockKind::System {
            let interval = match settings.pace {
                Pace::Fixed(interval) => Some(interval),
                Pace::Auto => None,
            };
            let text = history.falls_behind(interval);
            found.extend(text.map(|text| (("epochs", "".into()), Alert::of_epochs(text))));
        }
        if let Some(limit) = settings.alerts.state_above {
            let large = states().into_iter().filter(|(_, bytes)| *bytes > limit);
            found.extend(
                large.map(|(name, bytes)| (("state", name.clone()), Alert::large(&name, bytes, limit))),
            );
        }
        found.extend(self.stalled(now, settings.alerts.stalled_after, &open_sources(sources, watermarks)));
        self.raise(found);
    }

    /// Leaves a time out in which the loop was busy: arrivals of it are handled only now.
    fn pass_over(&mut self, gap: Duration) {
        if gap > BUSY {
            for seen in self.seen.values_mut() {
                seen.rows_since += gap;
                seen.watermark_since.0 += gap;
            }
        }
    }

    /// Returns the sources that have become silent, and those whose watermarks stand.
    fn stalled(&mut self, now: Instant, after: Option<Duration>, open: &BTreeMap<Arc<str>, Now>) -> Raised {
        let mut found = BTreeMap::new();
        self.seen.retain(|name, _| open.contains_key(name));
        for (name, Now { rows, waits, watermark }) in open {
            let seen = self.seen.entry(name.clone()).or_insert(Seen {
                rows: *rows,
                rows_since: now,
                watermark: *watermark,
                watermark_since: (now, *rows),
            });
            if seen.rows != *rows || *waits {
                (seen.rows, seen.rows_since) = (*rows, now);
            }
            if seen.watermark != *watermark {
                (seen.watermark, seen.watermark_since) = (*watermark, (now, *rows));
            }
            let Some(after) = after else { continue };
            let long = interval_text(after);
            if *rows > 0 && now.duration_since(seen.rows_since) >= after {
                found.insert(("silent", name.clone()), Alert::silent(name, &long));
            } else if watermark.is_some()
                && now.duration_since(seen.watermark_since.0) >= after
                && *rows > seen.watermark_since.1
            {
                found.insert(("watermark", name.clone()), Alert::standing(name, &long));
            }
        }
        found
    }

    /// Replaces the conditions that hold. Logs those that begin, and those that are over.
    fn raise(&mut self, found: Raised) {
        for (_, alert) in found.iter().filter(|(key, _)| !self.raised.contains_key(*key)) {
            tracing::warn!("{}", alert.text);
        }
        for (_, alert) in self.raised.iter().filter(|(key, _)| !found.contains_key(*key)) {
            tracing::info!("over: {}", alert.text);
        }
        self.raised = found;
    }
}

/// Returns the sources that may still have rows, as they are now.
fn open_sources(sources: &Sources, watermarks: &Watermarks) -> BTreeMap<Arc<str>, Now> {
    let open = sources.iter().filter(|(_, source)| {
        source.used
            && !source.paused
            && !source.is_bounded()
            && !source.has_ended()
            && source.health.trouble().is_none()
    });
    open.map(|(name, source)| {
        let watermark = watermarks.get(name).and_then(|watched| watched.marks.at());
        (name.clone(), Now { rows: source.counts.rows(), waits: source.waiting_size().0 > 0, watermark })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(60);

    fn kinds(alerts: &mut Alerts, at: Instant, open: &[(&str, u64, Option<i64>)]) -> Vec<&'static str> {
        let open = open.iter().map(|(name, rows, watermark)| {
            ((*name).into(), Now { rows: *rows, waits: false, watermark: *watermark })
        });
        let found = alerts.stalled(at, Some(AFTER), &open.collect());
        found.into_keys().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn a_source_is_silent_once_it_has_had_rows_and_then_none() {
        let (mut alerts, begin) = (Alerts::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert!(kinds(&mut alerts, begin, &[("never", 0, None), ("a", 5, None)]).is_empty());
        assert!(kinds(&mut alerts, after(59), &[("never", 0, None), ("a", 5, None)]).is_empty());
        assert_eq!(kinds(&mut alerts, after(60), &[("never", 0, None), ("a", 5, None)]), ["silent"]);
        assert!(kinds(&mut alerts, after(61), &[("never", 0, None), ("a", 6, None)]).is_empty());
        // A source that is paused or ends, and comes back, begins anew.
        assert!(kinds(&mut alerts, after(100), &[]).is_empty());
        assert!(kinds(&mut alerts, after(200), &[("a", 6, None)]).is_empty());
    }

    #[test]
    fn a_watermark_stands_if_it_does_not_move_while_rows_arrive() {
        let (mut alerts, begin) = (Alerts::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        for second in 0..60 {
            assert!(kinds(&mut alerts, after(second), &[("a", 1 + second, Some(7))]).is_empty());
        }
        assert_eq!(kinds(&mut alerts, after(60), &[("a", 61, Some(7))]), ["watermark"]);
        assert!(kinds(&mut alerts, after(61), &[("a", 61, Some(8))]).is_empty());
        // Without a watermark, nothing stands.
        assert!(kinds(&mut alerts, after(70), &[("b", 1, None)]).is_empty());
        assert!(kinds(&mut alerts, after(140), &[("b", 2, None)]).is_empty());
    }

    #[test]
    fn a_source_whose_rows_wait_is_not_silent_and_a_busy_loop_proves_nothing() {
        let (mut alerts, begin) = (Alerts::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        let waiting = BTreeMap::from([("a".into(), Now { rows: 5, waits: true, watermark: None })]);
        for second in [0, 70, 140] {
            assert!(alerts.stalled(after(second), Some(AFTER), &waiting).is_empty());
        }
        alerts.pass_over(Duration::from_secs(100));
        assert!(kinds(&mut alerts, after(240), &[("a", 5, None)]).is_empty());
        assert_eq!(kinds(&mut alerts, after(300), &[("a", 5, None)]), ["silent"]);
    }

    #[test]
    fn what_is_raised_is_told_until_it_is_over() {
        let mut alerts = Alerts::default();
        alerts.raise(BTreeMap::from([(("silent", "a".into()), Alert::silent(&"a".into(), "1 minute"))]));
        let text = "source \"a\" has had no rows for more than 1 minute: SELECT * FROM millstream.source_partitions shows \
                    how far it was read";
        assert_eq!(alerts.texts().collect::<Vec<_>>(), [text]);
        alerts.raise(BTreeMap::new());
        assert_eq!(alerts.texts().count(), 0);
    }
}
