//! Statistics of generated and compared queries, for people.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use super::ast::Query;
use crate::oracle::counts::Feeds;
use crate::oracle::run::{Mode, Outcome, Tally};

/// Maximum number of reasons shown.
const SHOWN_MAX: usize = 25;

/// The number of occurrences of something, with one example.
#[derive(Clone, Debug)]
pub struct Reason {
    /// The number of occurrences.
    pub count: usize,
    /// The seed of the example's round.
    pub seed: u64,
    /// The shortest example.
    pub example: Query,
}

/// Reasons by the text of the error.
pub type Reasons = BTreeMap<String, Reason>;

/// Statistics of generated and compared queries.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Number of rounds.
    pub rounds: usize,
    /// Number of queries drawn.
    pub drawn: usize,
    /// Number of queries that became views.
    pub queries: usize,
    /// Number of queries skipped because of the size of their answers.
    pub too_large: usize,
    /// Number of queries among them without rows over the final content.
    pub empty: usize,
    /// The epochs and comparisons of all runs.
    pub tally: Tally,
    /// Number of queries repeated over rows in another order.
    pub reordered: usize,
    /// Number of queries asked in several ways.
    pub partitioned: usize,
    /// The feeds, by the mode of the engine.
    pub feeds: Feeds,
    /// Queries that the planner rejects.
    pub refused: Reasons,
    /// Queries that fail at run time.
    pub failing: Reasons,
}

impl Counts {
    /// Records a query that cannot be planned.
    pub fn refused(&mut self, error: &str, seed: u64, query: &Query) {
        note(&mut self.refused, class(error), Reason { count: 1, seed, example: query.clone() });
    }

    /// Records a query that fails over the rows.
    pub fn failing(&mut self, error: &str, seed: u64, query: &Query) {
        note(&mut self.failing, class(error), Reason { count: 1, seed, example: query.clone() });
    }

    /// Records a run.
    pub fn ran(&mut self, mode: Mode, outcome: &Outcome) {
        self.feeds.count(mode);
        self.tally += &outcome.tally;
    }

    /// Adds other counts.
    pub fn add(&mut self, other: &Counts) {
        self.rounds += other.rounds;
        self.drawn += other.drawn;
        self.queries += other.queries;
        self.too_large += other.too_large;
        self.empty += other.empty;
        self.tally += &other.tally;
        self.reordered += other.reordered;
        self.partitioned += other.partitioned;
        self.feeds += other.feeds;
        for (ours, others) in [(&mut self.refused, &other.refused), (&mut self.failing, &other.failing)] {
            for (class, reason) in others {
                note(ours, class.clone(), reason.clone());
            }
        }
    }

    /// Returns the number of queries that could not be planned.
    pub fn refusals(&self) -> usize {
        self.refused.values().map(|reason| reason.count).sum()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "generated: {} queries in {} rounds, {} epochs, {} comparisons, {} feeds through Whole operators, {} \
             over append-only tables, {} through engines that go on from checkpoints, {} through such engines whose rows are in files, {} asked again over shuffled rows, {} asked in several ways",
            self.queries,
            self.rounds,
            self.tally.epochs,
            self.tally.comparisons,
            self.feeds.whole,
            self.feeds.append_only,
            self.feeds.restarted,
            self.feeds.spilled,
            self.reordered,
            self.partitioned
        )?;
        writeln!(
            f,
            "  nothing to compare: {} times failed in batch, where {} views said so too; {} times unreached: a view \
             fails for a row that the batch didn't come to look at",
            self.tally.failed_in_batch, self.tally.failed_alike, self.tally.unreached
        )?;
        let refusals = self.refusals();
        writeln!(
            f,
            "  drawn {}, refused {refusals} ({:.1} %), answers too large {}, answers without rows {}",
            self.drawn,
            100.0 * refusals as f64 / self.drawn.max(1) as f64,
            self.too_large,
            self.empty
        )
    }
}

/// Returns the most frequent reasons, each with its class.
pub fn most_frequent(reasons: &Reasons) -> Vec<(&String, &Reason)> {
    let mut reasons: Vec<_> = reasons.iter().collect();
    reasons.sort_by_key(|(_, reason)| std::cmp::Reverse(reason.count));
    reasons.truncate(SHOWN_MAX);
    reasons
}

fn note(reasons: &mut Reasons, class: String, more: Reason) {
    match reasons.entry(class) {
        Entry::Vacant(place) => {
            place.insert(more);
        }
        Entry::Occupied(mut place) => {
            let known = place.get_mut();
            known.count += more.count;
            if more.example.to_string().len() < known.example.to_string().len() {
                (known.seed, known.example) = (more.seed, more.example);
            }
        }
    }
}

/// Returns an error's text without the parts that differ from query to query.
pub fn class(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    let mut text = String::new();
    for word in line.split(' ').take(16) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(if word.chars().any(|c| c.is_ascii_digit()) { "…" } else { word });
    }
    text.chars().take(140).collect()
}
