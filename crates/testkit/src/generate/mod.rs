//! Random queries over random tables, fed with random deltas, tested by the replay oracle.
//!
//! A seed determines a round: a few tables with columns of any types, a feed for them, and some queries.
//! Every query becomes two maintained views. As for the files of `sql-tests/`, the oracle compares them with
//! the one-shot query after every epoch. At the end it repeats all queries over the same rows in another
//! order, and asks some others in several ways that must agree. The oracle shrinks failures: the query as a
//! tree, the rows, the epochs.
//!
//! ```text
//! cargo run --release -p millstream-testkit -- generate [QUERIES] [EPOCHS] [SEED]
//! ```

pub mod ast;
pub mod counts;
pub mod deltas;
pub mod draw;
pub mod family;
pub mod forms;
pub mod invariants;
pub mod reduce;
pub mod round;
pub mod shrink;
pub mod tables;
pub mod visit;

mod aggregates;
mod relations;
mod scalars;
mod selects;
mod subqueries;
mod windows;

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use counts::Counts;
use round::Round;
use shrink::Small;

use crate::drive;
use crate::oracle::run::{self, Failure, Mode};
use crate::oracle::script;

/// Seeds of test runs, which take a third of them by default. Add seeds that have found something.
pub const KEPT_SEEDS: &[u64] = &[
    1, 2, 3, 4, 5, 6, 8, 12, 114, 1010, 7005, 300170, 300186, 300260, 300273, 400012, 400324, 400349,
    2100178, 2200073, 310102, 310176, 320085, 320176,
];

/// Maximum number of failures shrunk per round.
const SHRUNK_MAX: usize = 3;

/// Maximum number of failures shrunk in total, which bounds the time of a run with many failures.
const SHRUNK_IN_ALL_MAX: usize = 60;

/// The number of failures shrunk so far.
static SHRUNK: AtomicUsize = AtomicUsize::new(0);

/// The parameters of rounds.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Number of queries per round.
    pub queries: usize,
    /// Number of epochs per round.
    pub epochs: usize,
    /// The time limit for shrinking one failure.
    pub patience: Duration,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { queries: 25, epochs: 6, patience: Duration::from_secs(40) }
    }
}

/// Runs the round of a seed; returns a message for each failure.
pub async fn check(seed: u64, setup: &Setup) -> (Counts, Vec<String>) {
    let mut counts = Counts { rounds: 1, ..Counts::default() };
    let round = match Round::make(seed, setup, &mut counts).await {
        Ok(round) => round,
        Err(error) => return (counts, vec![format!("seed {seed}: the round can't be made: {error}")]),
    };
    let mut messages = Vec::new();
    let outcome = run::run(&round.case, &round.texts(), &round.feed, Mode::Fast).await;
    counts.ran(Mode::Fast, &outcome);
    messages.extend(explained(&round, &outcome.failures, Mode::Fast, setup).await);
    match round.reorder(&outcome.answers, &mut counts).await {
        Ok(found) => messages.extend(found),
        Err(error) => messages.push(format!("seed {seed}: over shuffled rows: {error}")),
    }
    match invariants::check(&round, setup.queries / 4, &mut counts).await {
        Ok(found) => messages.extend(found),
        Err(error) => messages.push(format!("seed {seed}: one question, several ways: {error}")),
    }
    if seed.is_multiple_of(4) {
        let outcome = run::run(&round.case, &round.texts(), &round.feed, Mode::Whole).await;
        counts.ran(Mode::Whole, &outcome);
        messages.extend(explained(&round, &outcome.failures, Mode::Whole, setup).await);
    }
    if seed % 4 == 3 {
        let outcome = run::run(&round.case, &round.texts(), &round.feed, Mode::Restarted).await;
        counts.ran(Mode::Restarted, &outcome);
        messages.extend(explained(&round, &outcome.failures, Mode::Restarted, setup).await);
    }
    if seed % 4 == 2 {
        let outcome = run::run(&round.case, &round.texts(), &round.feed, Mode::Spilled).await;
        counts.ran(Mode::Spilled, &outcome);
        messages.extend(explained(&round, &outcome.failures, Mode::Spilled, setup).await);
    }
    if seed % 4 == 1 {
        match round.over_append_only_tables(setup.epochs) {
            Ok(round) => {
                let outcome = run::run(&round.case, &round.texts(), &round.feed, Mode::AppendOnly).await;
                counts.ran(Mode::AppendOnly, &outcome);
                messages.extend(explained(&round, &outcome.failures, Mode::AppendOnly, setup).await);
            }
            Err(error) => messages.push(format!("seed {seed}: no feed can be made: {error}")),
        }
    }
    (counts, messages)
}

/// Returns messages that help people to find the causes.
async fn explained(round: &Round, failures: &[Failure], mode: Mode, setup: &Setup) -> Vec<String> {
    let mut messages = Vec::new();
    for (index, failure) in failures.iter().enumerate() {
        let Some(query) = failure.query.and_then(|at| round.queries.get(at)) else {
            messages.push(without_query(round, failure, mode).await);
            continue;
        };
        let first = Small { query: query.clone(), feed: round.feed.clone(), failure: failure.clone() };
        let shrinks = index < SHRUNK_MAX && SHRUNK.fetch_add(1, Ordering::Relaxed) < SHRUNK_IN_ALL_MAX;
        let small = match shrinks {
            true => shrink::shrink(&round.case, first, mode, setup.patience).await,
            false => first,
        };
        let mut text = format!(
            "seed {}, {mode:?} operators, epoch {}, view created {}\n{query}\n{}",
            round.seed,
            failure.epoch,
            if small.failure.late { "late" } else { "before the rows" },
            small.failure.what
        );
        if shrinks {
            let query = round::text(&small.query);
            let script = script::script(&round.case, Some(&query), &small.feed, small.failure.epoch);
            text.push_str(&format!("\nthe shortest script that was found:\n{script}"));
        }
        messages.push(text);
    }
    messages
}

/// Describes a failure of the engine or of a table: names the queries that cause it alone.
async fn without_query(round: &Round, failure: &Failure, mode: Mode) -> String {
    let mut text =
        format!("seed {}, {mode:?} operators, epoch {}\n{}", round.seed, failure.epoch, failure.what);
    for query in round.texts() {
        let alone = run::run(&round.case, std::slice::from_ref(&query), &round.feed, mode).await;
        if let Some(found) = alone.failures.first() {
            text.push_str(&format!("\nalone with it: {}\n  {}", query.sql, found.what));
        }
    }
    text
}

/// Runs rounds from `seed` on until `queries` queries were asked, in two threads; reports each failure at
/// once.
pub fn run_rounds(queries: usize, setup: &Setup, seed: u64) -> (Counts, usize) {
    let all = queries.div_ceil(setup.queries);
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let total = Mutex::new((Counts::default(), 0));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= all {
                return;
            }
            let seed = seed + at as u64;
            let round = || drive::block_on(async { Ok(check(seed, setup).await) });
            let done =
                std::panic::catch_unwind(AssertUnwindSafe(round)).unwrap_or_else(|_| Err("panics".into()));
            let (counts, messages) =
                done.unwrap_or_else(|error| (Counts::default(), vec![format!("seed {seed}: {error}")]));
            for message in &messages {
                println!("=== {message}\n");
            }
            if let Ok(mut total) = total.lock() {
                total.0.add(&counts);
                total.1 += messages.len();
                if total.0.rounds.is_multiple_of(20) {
                    let (rounds, seconds) = (total.0.rounds, start.elapsed().as_secs());
                    println!("{rounds} of {} rounds are done in {seconds} s, {} failures", all, total.1);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Returns each reason for skipped queries, with the smallest query found for it.
pub async fn reasons(counts: &Counts, patience: Duration) -> Vec<String> {
    let mut found = Vec::new();
    for (what, reasons) in [("refused", &counts.refused), ("fails over rows", &counts.failing)] {
        for (class, reason) in counts::most_frequent(reasons) {
            let small = round::smallest(reason.seed, &reason.example, patience).await;
            let small = small.unwrap_or_else(|error| error);
            found.push(format!("{what} {}: {class}\n-- seed {}\n{small}", reason.count, reason.seed));
        }
    }
    found
}
