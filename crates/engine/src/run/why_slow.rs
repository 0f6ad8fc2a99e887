//! EXPLAIN WHY, for time and memory: what makes epochs slow or late and state large, with figures, and the clause or
//! setting that would change it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_flow::{Cost, Explained, Growth};

use super::clock::Clock;
use super::memory::memory_bytes;
use super::queries::Queries;
use super::query::{RunningQuery, Status};
use super::query_names::{displayed_name, operator_of};
use super::why::Reason;
use crate::metrics::{Busy, History, Second};
use crate::run::read_view::ReadView;
use crate::settings::{Pace, Settings, bytes_text, interval_text};

/// Seconds over which times are taken.
const SECONDS: u64 = 60;

/// The time that a query must have taken within these seconds to be called slow.
const SLOW_TIME: Duration = Duration::from_secs(1);

/// The share of these seconds that it must have taken, in percent.
const SLOW_PERCENT: u64 = 10;

/// The bytes of state from which on a query is called large.
const LARGE_BYTES: usize = 64 << 20;

/// Maximum of lagging queries that are listed.
const LAGGING_MAX: usize = 5;

/// The epochs and the work of operators in the last seconds.
struct Recent {
    /// The number of seconds, at most [`SECONDS`].
    seconds: u64,
    epochs: u64,
    processing_us: u64,
    processing_max_us: u64,
    scheduling_max_us: u64,
    /// The time of each query, and of its operators by node, in microseconds.
    busy: BTreeMap<Arc<str>, (u64, BTreeMap<usize, u64>)>,
}

impl Recent {
    fn of(history: &History) -> Recent {
        let since = history.now().saturating_sub(SECONDS);
        Recent::over(&history.seconds(since), history.busy(since).iter().flat_map(|(_, busy)| busy.iter()))
    }

    fn over<'a>(seconds: &[Second], busy: impl Iterator<Item = &'a Busy>) -> Recent {
        let longest = |of: fn(&Second) -> u64| seconds.iter().map(of).max().unwrap_or_default();
        let mut recent = Recent {
            seconds: seconds.len() as u64,
            epochs: seconds.iter().map(|second| second.epochs).sum(),
            processing_us: seconds.iter().map(|second| second.processing_us).sum(),
            processing_max_us: longest(|second| second.processing_max_us),
            scheduling_max_us: longest(|second| second.scheduling_max_us),
            busy: BTreeMap::new(),
        };
        for Busy { query, node, time_us } in busy {
            let (whole, nodes) = recent.busy.entry(query.clone()).or_default();
            match node {
                None => *whole += time_us,
                Some(node) => *nodes.entry(*node).or_default() += time_us,
            }
        }
        recent
    }

    /// Returns the share of the last seconds that a time takes, in percent. A part of a long epoch may lie before them.
    fn percent(&self, time_us: u64) -> u64 {
        (time_us / 10_000 / self.seconds.max(1)).min(100)
    }

    /// Returns the query that took most time.
    fn busiest(&self) -> Option<&Arc<str>> {
        self.busy.iter().max_by_key(|(_, (time, _))| *time).map(|(query, _)| query)
    }
}

impl ReadView<'_> {
    /// Returns the reasons for which epochs are slow or late and state is large.
    pub(super) fn explain_engine(&self) -> Vec<Reason> {
        let settings = &self.setup.settings;
        let recent = Recent::of(&self.measures.history);
        let mut reasons = vec![("slow".to_string(), epochs_text(&recent, settings))];
        if let Some(query) = recent.busiest().and_then(|name| self.queries.query(name)) {
            let name = displayed_name(self.queries, query);
            reasons
                .extend(slow_text(&recent, query).map(|text| ("slow".to_string(), format!("{name} {text}"))));
        }
        reasons.extend(late_texts(&recent, self.queries, self.clock, settings));
        let (tables, bytes) = memory_bytes(self.queries, self.tables);
        let limit = settings.memory.limit.map_or_else(
            || "memory_limit is none".to_string(),
            |limit| format!("memory_limit is {}", bytes_text(limit)),
        );
        let (bytes, tables) = (bytes_text(bytes), bytes_text(tables));
        reasons.push(("large".into(), format!("operators keep {bytes} and tables {tables}; {limit}")));
        let largest = self.queries.iter().max_by_key(|query| query.state_bytes());
        if let Some(query) = largest.filter(|query| query.state_bytes() > 0) {
            let name = displayed_name(self.queries, query);
            reasons
                .extend(large_text(query).map(|text| ("large".into(), format!("{name} keeps most: {text}"))));
        }
        reasons.extend(self.memory.trouble().map(|reason| ("large".into(), reason)));
        reasons
    }

    /// Returns the reasons for which a query is slow or large, if it is.
    pub(super) fn slow_or_large(&self, query: &RunningQuery) -> Vec<String> {
        let recent = Recent::of(&self.measures.history);
        let (time_us, _) = recent.busy.get(&query.name).cloned().unwrap_or_default();
        let is_slow = u128::from(time_us) >= SLOW_TIME.as_micros() && recent.percent(time_us) >= SLOW_PERCENT;
        let slow = slow_text(&recent, query).filter(|_| is_slow).map(|text| format!("it {text}"));
        let large = large_text(query).filter(|_| query.state_bytes() >= LARGE_BYTES);
        slow.into_iter().chain(large.map(|text| format!("it is large: {text}"))).collect()
    }
}

/// Returns what epochs took lately, and what their length depends on.
fn epochs_text(recent: &Recent, settings: &Settings) -> String {
    let Some(mean_us) = recent.processing_us.checked_div(recent.epochs) else {
        return format!("no epoch has completed in the last {} s", recent.seconds);
    };
    let mut text = format!(
        "epochs took {} % of the last {} s: {} on average, {} at most",
        recent.percent(recent.processing_us),
        recent.seconds,
        time_text(mean_us),
        time_text(recent.processing_max_us)
    );
    if let Pace::Fixed(interval) = settings.pace {
        let name = interval_text(interval);
        text.push_str(&if u128::from(mean_us) > interval.as_micros() {
            let wanted = interval_text(Duration::from_millis(2 * mean_us / 1000 + 1));
            format!(", longer than batch_interval, {name}: SET batch_interval = '{wanted}' makes fewer epochs of it")
        } else {
            format!("; batch_interval is {name}")
        });
    }
    text
}

/// Returns what a query took of the last seconds, and which of its operators took most; `None` if it took nothing.
fn slow_text(recent: &Recent, query: &RunningQuery) -> Option<String> {
    let (time_us, nodes) = recent.busy.get(&query.name).filter(|(time_us, _)| *time_us > 0)?;
    let mut text = format!("took {} % of the last {} s", recent.percent(*time_us), recent.seconds);
    let Some((node, most_us)) = nodes.iter().max_by_key(|(_, time_us)| **time_us) else { return Some(text) };
    let is_slow = recent.percent(*time_us) >= SLOW_PERCENT;
    if let Some(operator) = operator_of(query, *node) {
        let share = (100 * most_us).checked_div(*time_us).unwrap_or_default().min(100);
        text.push_str(&format!(
            ", {share} % of it in {}{}",
            operator.title.trim(),
            cost_text(&operator, is_slow)
        ));
    }
    Some(text)
}

/// Returns the cost of an operator with the reason for it and, if it is slow, what would make it cheaper.
fn cost_text(operator: &Explained, is_slow: bool) -> String {
    let Some(cost) = operator.cost else { return String::new() };
    let because = if operator.why.is_empty() { String::new() } else { format!(" because {}", operator.why) };
    let advice = match cost {
        Cost::Delta => "less input or a longer batch_interval takes less",
        Cost::Keys => "smaller groups take less: a further column in the key, or a window",
        Cost::Pairs => "an equality between the two sides lets the join find its rows by key",
        Cost::Few | Cost::Whole => {
            "each epoch reads the whole input: a longer batch_interval makes fewer epochs, and a query without this \
             operator takes the changes alone"
        }
    };
    let advice = if is_slow { format!("; {advice}") } else { String::new() };
    format!(" (cost {}{because}){advice}", cost.name())
}

/// Returns the reasons for which results are late.
fn late_texts(recent: &Recent, queries: &Queries, clock: &Clock, settings: &Settings) -> Vec<Reason> {
    let mut texts = Vec::new();
    if recent.epochs > 0 {
        let waited = time_text(recent.scheduling_max_us);
        let mut text = format!("an epoch waited {waited} at most before it began");
        if recent.scheduling_max_us > recent.processing_max_us.max(1_000_000) {
            let cause = match settings.pace {
                Pace::Fixed(_) => "epochs take longer than batch_interval: see slow",
                Pace::Auto => "something else held it up: a checkpoint, or a statement that changes objects",
            };
            text.push_str(&format!("; {cause}"));
        }
        texts.push(text);
    }
    let mut lagging: Vec<(u64, String)> = Vec::new();
    for query in queries.iter() {
        let Status::Lagging(lag) = &query.status else { continue };
        let epochs = clock.epoch.0.saturating_sub(lag.through().0);
        let name = displayed_name(queries, query);
        let text = format!("{name} is {epochs} epochs behind: EXPLAIN WHY {name} says why");
        lagging.push((epochs, text));
    }
    lagging.sort_by_key(|(epochs, _)| std::cmp::Reverse(*epochs));
    texts.extend(
        lagging.into_iter().filter(|(epochs, _)| *epochs > 0).take(LAGGING_MAX).map(|(_, text)| text),
    );
    texts.into_iter().map(|text| ("late".to_string(), text)).collect()
}

/// Returns the operator of a query that keeps most, and the growth of its state; `None` if none keeps anything.
fn large_text(query: &RunningQuery) -> Option<String> {
    let operators = query.operators();
    let kept = operators.iter().filter(|operator| !operator.place.repeated && operator.state.bytes > 0);
    let most = kept.max_by_key(|operator| operator.state.bytes)?;
    let bytes = bytes_text(most.state.bytes);
    let mut text =
        format!("{} keeps {bytes}, {} ({})", most.title.trim(), most.state.text, most.state.growth.text());
    if let Growth::With(_) = most.state.growth {
        text.push_str(
            "; a window that closes, a temporal filter (WHERE ts > now() - INTERVAL …) or WITH (state_ttl = …) bounds it",
        );
    }
    Some(text)
}

/// Returns a time for people: `12.3 ms`.
fn time_text(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(interval: u64) -> Settings {
        Settings { pace: Pace::Fixed(Duration::from_millis(interval)), ..Settings::default() }
    }

    fn seconds(count: u64, processing_us: u64) -> Vec<Second> {
        let second = |number| Second {
            number,
            epochs: 2,
            processing_us,
            processing_max_us: processing_us,
            ..Second::default()
        };
        (0..count).map(second).collect()
    }

    #[test]
    fn epochs_that_take_longer_than_the_interval_are_said_with_a_setting() {
        let recent = Recent::over(&seconds(10, 500_000), std::iter::empty());
        assert_eq!(
            epochs_text(&recent, &fixed(1000)),
            "epochs took 50 % of the last 10 s: 250.0 ms on average, 500.0 ms at most; batch_interval is 1 second"
        );
        assert!(epochs_text(&recent, &fixed(100)).ends_with(
            ", longer than batch_interval, 100 milliseconds: SET batch_interval = '501 milliseconds' makes fewer epochs \
             of it"
        ));
        let none = Recent::over(&[], std::iter::empty());
        assert_eq!(epochs_text(&none, &fixed(100)), "no epoch has completed in the last 0 s");
    }

    #[test]
    fn times_of_queries_and_operators_are_summed() {
        let of = |query: &str, node, time_us| Busy { query: query.into(), node, time_us };
        let busy = [of("a", None, 10), of("a", Some(1), 7), of("b", None, 15), of("a", None, 10)];
        let recent = Recent::over(&seconds(4, 1), busy.iter());
        assert_eq!(recent.busiest().map(AsRef::as_ref), Some("a"));
        assert_eq!(recent.busy["a"], (20, BTreeMap::from([(1, 7)])));
        assert_eq!(recent.percent(1_000_000), 25);
    }

    #[test]
    fn figures_have_units() {
        assert_eq!((time_text(999).as_str(), time_text(1_500).as_str()), ("999 us", "1.5 ms"));
    }
}
