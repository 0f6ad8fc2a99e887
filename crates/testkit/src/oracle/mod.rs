//! The replay oracle: maintained results equal the batch answer after every epoch, in whatever order rows
//! arrive.
//!
//! Every query of a .slt file becomes a materialized view before its tables have rows, and a second one on
//! the way. The rows arrive in random micro-batches, beside extra rows that are deleted again. After every
//! epoch the oracle compares both views with the one-shot query over the same tables.
//!
//! - `MILLSTREAM_SEEDS=all` runs all kept seeds, not only the first one.
//! - `MILLSTREAM_SEED=7` runs that seed instead of the kept ones.
//! - `MILLSTREAM_EPOCHS=20` uses more, smaller epochs.
//! - `MILLSTREAM_PAGES=3` gives pages, chunks and pieces of state three entries.
//!
//! These run every case in one more way, instead of a random share of the cases:
//!
//! - `MILLSTREAM_WHOLE=1` with an engine of Whole operators.
//! - `MILLSTREAM_APART=1` with lagging queries.
//! - `MILLSTREAM_RESTARTED=1` with engines that restart from checkpoints.
//! - `MILLSTREAM_SPILLED=1` with such engines and spilled rows.
//! - `MILLSTREAM_APPEND_ONLY=1` over append-only tables.
//!
//! Deliberately absent: queries over sources, whose content can't be read as a batch.

pub mod compare;
pub mod convert;
pub mod counts;
pub mod feed;
pub mod run;
pub mod script;
pub mod shrink;
pub mod statement;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use arrow::array::RecordBatch;
use convert::{Case, Query};
pub use counts::Counts;
use feed::{Feed, Wishes};
use run::{Failure, Mode, Outcome};

use crate::drive;

/// The kept seeds, of which tests take the first one by default. Add seeds that have found something.
pub const KEPT_SEEDS: &[u64] = &[1, 2, 3];

/// Seeds that have found something in one file, with the epochs of the feed.
const KEPT_FOR: &[(&str, u64, usize)] = &[
    ("query/grouping.slt", 1795167287, 6),
    ("query/over.slt", 1795167467, 8),
    ("query/over.slt", 6, 6),
    ("query/over.slt", 9, 6),
];

/// The default number of epochs of a feed.
const EPOCHS: usize = 6;

/// A table with more rows is fed in two epochs, to bound the time.
const LARGE_ROWS: usize = 2000;

/// Maximum number of failures shrunk per case.
const SHRUNK_MAX: usize = 2;

/// The parameters of the oracle.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The seeds; each determines one run of every case.
    pub seeds: Vec<u64>,
    /// True if the seeds kept for single files run, too.
    pub kept: bool,
    /// Number of epochs per feed.
    pub epochs: usize,
    /// True if every case also runs with Whole operators.
    pub whole: bool,
    /// True if every case also runs over append-only tables.
    pub append_only: bool,
    /// True if every case also runs with lagging queries.
    pub apart: bool,
    /// True if every case also runs with engines that restart from checkpoints.
    pub restarted: bool,
    /// True if every case also runs with such engines and spilled rows.
    pub spilled: bool,
    /// Maximum number of failures shrunk per case.
    pub shrunk_max: usize,
}

impl Setup {
    /// Returns the parameters from the environment.
    pub fn from_environment() -> Setup {
        let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
        Setup {
            seeds: number("MILLSTREAM_SEED").map_or_else(kept_seeds, |seed| vec![seed]),
            kept: number("MILLSTREAM_SEED").is_none(),
            epochs: number("MILLSTREAM_EPOCHS").map_or(EPOCHS, |epochs| epochs as usize),
            whole: std::env::var_os("MILLSTREAM_WHOLE").is_some(),
            append_only: std::env::var_os("MILLSTREAM_APPEND_ONLY").is_some(),
            apart: std::env::var_os("MILLSTREAM_APART").is_some(),
            restarted: std::env::var_os("MILLSTREAM_RESTARTED").is_some(),
            spilled: std::env::var_os("MILLSTREAM_SPILLED").is_some(),
            shrunk_max: SHRUNK_MAX,
        }
    }
}

fn kept_seeds() -> Vec<u64> {
    let count = if drive::all_seeds() { KEPT_SEEDS.len() } else { 1 };
    KEPT_SEEDS[..count].to_vec()
}

/// Compares all queries of one file; the error lists every failure, shrunk, with its seed.
pub async fn check(path: &Path, name: &str, setup: &Setup) -> (Counts, drive::Result<()>) {
    let mut counts = Counts::of_file();
    let converted = match convert::cases(path, name).await {
        Ok(converted) => converted,
        Err(error) => return (counts, Err(format!("{name} can't be walked through: {error}"))),
    };
    counts.left_out = converted.left_out;
    let mut failures = Vec::new();
    for (number, case) in converted.cases.iter().enumerate() {
        counts.queries += case.queries.len();
        for seed in &setup.seeds {
            failures.extend(check_case(case, number, *seed, setup, &mut counts).await);
        }
        for (_, seed, epochs) in KEPT_FOR.iter().filter(|(file, ..)| setup.kept && *file == name) {
            let setup = Setup { epochs: *epochs, ..setup.clone() };
            failures.extend(check_case(case, number, *seed, &setup, &mut counts).await);
        }
    }
    let result = if failures.is_empty() { Ok(()) } else { Err(failures.join("\n\n")) };
    (counts, result)
}

/// A violation, for people.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The query; `None`: the tables or the engine.
    pub query: Option<Query>,
    /// The description of the violation, with its place and a way to reproduce it.
    pub text: String,
}

/// The result for one case.
#[derive(Clone, Debug, Default)]
pub struct Examined {
    /// All violations.
    pub findings: Vec<Finding>,
    /// The answers of queries over the rows of the case, by the queries' indices.
    pub answers: BTreeMap<usize, RecordBatch>,
}

/// Compares all queries of one case with one seed.
async fn check_case(
    case: &Case,
    number: usize,
    seed: u64,
    setup: &Setup,
    counts: &mut Counts,
) -> Vec<String> {
    let examined = examine(case, number, seed, setup, counts).await;
    examined.findings.into_iter().map(|finding| finding.text).collect()
}

/// Compares all queries of one case with one seed; `number` is the case's number in the file.
pub async fn examine(case: &Case, number: usize, seed: u64, setup: &Setup, counts: &mut Counts) -> Examined {
    let mut hasher = DefaultHasher::new();
    (seed, &case.file, number).hash(&mut hasher);
    let drawn = hasher.finish();
    let large = case
        .objects
        .iter()
        .filter_map(|object| object.table.as_ref())
        .any(|t| t.rows.num_rows() > LARGE_ROWS);
    let epochs_max = if large { setup.epochs.min(2) } else { setup.epochs };
    let wishes = Wishes { seed: drawn, epochs_max, extra_rows: true };
    let mut modes = vec![Mode::Fast];
    if setup.whole || drawn.is_multiple_of(4) {
        modes.push(Mode::Whole);
    }
    if setup.append_only || drawn % 4 == 1 {
        modes.push(Mode::AppendOnly);
    }
    if setup.apart || drawn % 4 == 2 {
        modes.push(Mode::Apart);
    }
    if setup.restarted || drawn % 4 == 3 {
        modes.push(Mode::Restarted);
    }
    if setup.spilled || (drawn / 4).is_multiple_of(4) {
        modes.push(Mode::Spilled);
    }
    let mut examined = Examined::default();
    for mode in modes {
        let run = Running { case, mode, seed, shrunk_max: setup.shrunk_max };
        let wishes = Wishes { extra_rows: mode != Mode::AppendOnly, ..wishes };
        let retry = run.feed_through(&case.queries, &wishes, counts, &mut examined).await;
        // Extra rows can make a query fail that has an answer over the file's rows. Such a query runs again
        // without extra rows.
        if !retry.is_empty() {
            let quiet = Wishes { extra_rows: false, ..wishes };
            run.feed_through(&retry, &quiet, counts, &mut examined).await;
        }
    }
    examined
}

/// A run of one case with one mode of engine.
struct Running<'a> {
    case: &'a Case,
    mode: Mode,
    seed: u64,
    shrunk_max: usize,
}

impl Running<'_> {
    /// Runs one feed through one engine; returns the queries that failed as a batch on the way.
    async fn feed_through(
        &self,
        queries: &[Query],
        wishes: &Wishes,
        counts: &mut Counts,
        examined: &mut Examined,
    ) -> Vec<Query> {
        let feed = match feed::feed(self.case, wishes) {
            Ok(feed) => feed,
            Err(error) => {
                let text = format!("{}: no feed can be made: {error}", self.case.file);
                examined.findings.push(Finding { query: None, text });
                return Vec::new();
            }
        };
        let outcome = run::run(self.case, queries, &feed, self.mode).await;
        counts.ran(self.mode, &outcome);
        for (index, failure) in outcome.failures.iter().enumerate() {
            let shrunk = index < self.shrunk_max;
            let query = failure.query.and_then(|index| queries.get(index)).cloned();
            let text =
                message(self.case, queries, &feed, self.mode, self.seed, failure.clone(), shrunk).await;
            examined.findings.push(Finding { query, text });
        }
        // Extra rows may have made a view that the query reads fail for good: such a query runs again without
        // them.
        let complete = outcome.failures.iter().all(|failure| failure.query.is_some());
        if complete && !wishes.extra_rows {
            examined.findings.extend(unanswered(self.case, queries, &outcome));
        }
        if complete {
            for (query, answer) in queries.iter().zip(&outcome.answers) {
                let place = self.case.queries.iter().position(|known| known == query);
                if let (Some(place), Some(answer)) = (place, answer) {
                    examined.answers.insert(place, answer.clone());
                }
            }
        }
        if wishes.extra_rows { failed_on_the_way(queries, &outcome) } else { Vec::new() }
    }
}

fn failed_on_the_way(queries: &[Query], outcome: &Outcome) -> Vec<Query> {
    let failed = queries.iter().zip(&outcome.failed_in_batch).filter(|(_, failed)| **failed);
    failed.map(|(query, _)| query.clone()).collect()
}

/// The message for a query that lacks the answer that it should have.
pub const UNANSWERED: &str = "has an answer in the file, but fails over the same rows here";

/// Returns violations: a query that the file answers must have an answer over the file's rows here as well.
fn unanswered(case: &Case, queries: &[Query], outcome: &Outcome) -> Vec<Finding> {
    let place = |query: &Query| format!("{}:{}: {}", case.file, query.line, query.sql);
    let errors = queries.iter().zip(&outcome.unanswered);
    errors
        .filter_map(|(query, error)| {
            let error = error.as_ref()?;
            let text = format!("{}\n  {UNANSWERED}: {error}", place(query));
            Some(Finding { query: Some(query.clone()), text })
        })
        .collect()
}

/// Returns a message that helps people to find the cause of a failure.
async fn message(
    case: &Case,
    queries: &[Query],
    feed: &Feed,
    mode: Mode,
    seed: u64,
    failure: Failure,
    shrunk: bool,
) -> String {
    let Some(query) = failure.query.and_then(|index| queries.get(index)) else {
        let script = script::script(case, None, feed, failure.epoch);
        return format!(
            "{}: seed {seed}, {mode:?} operators, epoch {}\n{}\n{script}",
            case.file, failure.epoch, failure.what
        );
    };
    let (small, failure) =
        if shrunk { shrink::shrink(case, query, feed, mode, failure).await } else { (feed.clone(), failure) };
    let mut text = format!(
        "{}:{}: seed {seed}, {mode:?} operators, epoch {}, view created {}\n{}\n{}",
        case.file,
        query.line,
        failure.epoch,
        if failure.late { "late" } else { "before the rows" },
        query.sql,
        failure.what
    );
    if shrunk {
        text.push_str("\nthe shortest script that was found:\n");
        text.push_str(&script::script(case, Some(query), &small, failure.epoch));
    }
    text
}
