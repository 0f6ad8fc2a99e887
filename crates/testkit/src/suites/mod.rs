//! DataFusion's own sqllogictest files under the replay oracle. Every deterministic query that reads a table
//! runs as a maintained view over its rows in random micro-batches. Its answer over the file's rows must be
//! plain DataFusion's.
//!
//! The statements of a file run in plain DataFusion, which returns the tables' rows and the plain answers.
//! Tables whose files the package lacks get made-up rows, and constant relations in queries (VALUES, series)
//! become tables. A difference from plain DataFusion counts if its own answer does not depend on the order of
//! rows.
//!
//! `cargo run --release -p millstream-testkit -- suites [FILTER] [--seeds N] [--list]` runs all of it; the
//! tests run a sample.

pub mod agree;
pub mod by_hand;
pub mod hoist;
pub mod known;
pub mod made_up;
pub mod package;
pub mod plain;
pub mod report;
pub mod walk;

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::RecordBatch;
use report::FileCounts;
use walk::{Asked, Sample, Walked};

use crate::drive;
use crate::oracle::convert::{Case, Query};
use crate::oracle::{self, Counts, Examined, UNANSWERED};

/// The seed of the tests, which run a sample of all queries.
const SAMPLE_SEED: u64 = 1;
/// The share of all queries in that sample, by default and with all seeds.
const SAMPLE_SHARES: (f64, f64) = (0.2, 0.4);
/// Number of epochs per feed in that sample.
const SAMPLE_EPOCHS: usize = 3;

/// The parameters of the suites.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The parameters of each case.
    pub oracle: oracle::Setup,
    /// The share of all queries to run, up to 1.
    pub share: f64,
}

impl Setup {
    /// Returns the parameters of the tests: a sample of the queries and few epochs. The environment can
    /// override them.
    pub fn of_tests() -> Setup {
        let mut oracle = oracle::Setup::from_environment();
        if std::env::var_os("MILLSTREAM_SEED").is_none() {
            oracle.seeds = vec![SAMPLE_SEED];
        }
        if std::env::var_os("MILLSTREAM_EPOCHS").is_none() {
            oracle.epochs = SAMPLE_EPOCHS;
        }
        oracle.shrunk_max = 1;
        Setup { oracle, share: if drive::all_seeds() { SAMPLE_SHARES.1 } else { SAMPLE_SHARES.0 } }
    }
}

/// The outcome of one converted query.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// Every view equalled its query, and so did plain DataFusion.
    Equal,
    /// Like `Equal`, but plain DataFusion's answer depends on the order of rows.
    Open,
    /// Not supported yet; the message says what.
    Refused(String),
    /// Every view equalled its query, but plain DataFusion did not.
    Differs(String),
    /// A failure, with its description.
    Failed(String),
}

/// Returns the files of the package whose names contain `filter`, by group: paths and names.
pub fn files(filter: &str) -> drive::Result<BTreeMap<String, Vec<(std::path::PathBuf, String)>>> {
    let folder = package::folder()?;
    let mut groups: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (path, name) in crate::slt::files(&folder)? {
        if name.contains(filter) {
            groups.entry(package::group(&name).to_string()).or_default().push((path, name));
        }
    }
    Ok(groups)
}

/// Runs the files of a suite; the error lists the failures that are not known.
pub async fn check_all(
    files: &[(std::path::PathBuf, String)],
    setup: &Setup,
) -> (Vec<FileCounts>, drive::Result<()>) {
    let mut all = Vec::new();
    let mut failures = Vec::new();
    for (path, name) in files {
        match check(path, name, setup).await {
            Ok(counts) => {
                failures.extend(counts.failures.iter().cloned());
                all.push(counts);
            }
            Err(error) => failures.push(format!("{name} can't be walked through: {error}")),
        }
    }
    let result = if failures.is_empty() { Ok(()) } else { Err(failures.join("\n\n")) };
    (all, result)
}

/// Runs one file; the counts include failures that are not known.
pub async fn check(path: &Path, name: &str, setup: &Setup) -> drive::Result<FileCounts> {
    let mut counts = FileCounts::new(name);
    if package::group(name) == "spark" {
        counts.left_out_whole(path, "the functions of Spark are not registered");
        return Ok(counts);
    }
    let seed = setup.oracle.seeds.first().copied().unwrap_or_default();
    let known = known::list()?;
    let walked = walk::walk(path, name, &known, Sample { seed, share: setup.share }).await?;
    let Walked { queries, cases, left_out } = walked;
    counts.queries = queries;
    counts.oracle.files = 1;
    counts.left_out = left_out;
    for (number, (case, asked)) in cases.iter().enumerate() {
        counts.oracle.queries += case.queries.len();
        let fates = fates(case, asked, number, &setup.oracle, &mut counts.oracle).await;
        for ((query, asked), fate) in case.queries.iter().zip(asked).zip(fates) {
            counts.take(query, asked, fate, known.get(&asked.place));
        }
    }
    Ok(counts)
}

/// Determines the outcome of each query of a case under all seeds.
async fn fates(
    case: &Case,
    asked: &[Asked],
    number: usize,
    setup: &oracle::Setup,
    counts: &mut Counts,
) -> Vec<Fate> {
    let mut fates = vec![Fate::Equal; case.queries.len()];
    for (turn, seed) in setup.seeds.iter().enumerate() {
        let examined = examine(case, number, *seed, setup, counts).await;
        for finding in examined.findings {
            let place = finding.query.as_ref().and_then(|query| place_of(case, query));
            // A finding without a query is attributed to the first one.
            let place = place.unwrap_or(0);
            if matches!(fates[place], Fate::Equal | Fate::Open) {
                fates[place] = judge(case, &case.queries[place], &asked[place], finding.text).await;
            }
        }
        if turn > 0 {
            continue;
        }
        for (place, answer) in examined.answers {
            if fates[place] != Fate::Equal {
                continue;
            }
            fates[place] = against_plain(case, &case.queries[place], &asked[place], &answer).await;
        }
    }
    fates
}

/// Compares an answer over the file's rows with plain DataFusion's.
async fn against_plain(case: &Case, query: &Query, asked: &Asked, answer: &RecordBatch) -> Fate {
    let text = match agree::disagreement(answer, &asked.answer) {
        Ok(None) => return Fate::Equal,
        Ok(Some(text)) | Err(text) => text,
    };
    let open = plain::is_open(case, &query.sql, &asked.answer, Some(answer)).await;
    let failed = |more: String| {
        Fate::Differs(format!(
            "{}: {}\n  differs from plain DataFusion: {text}{more}",
            asked.place, query.sql
        ))
    };
    match open {
        Ok(true) => Fate::Open,
        Ok(false) => failed(String::new()),
        Err(error) => failed(format!("\n  (it can't be told whether that is open: {error})")),
    }
}

fn place_of(case: &Case, query: &Query) -> Option<usize> {
    case.queries.iter().position(|known| known == query)
}

/// Determines the outcome of a query from a finding.
async fn judge(case: &Case, query: &Query, asked: &Asked, text: String) -> Fate {
    if text.contains("must appear in GROUP BY or be used in an aggregate function") {
        return Fate::Refused("relies on UNIQUE, or on a key that its rows don't keep".into());
    }
    if text.contains("; a boolean is expected") {
        return Fate::Refused("takes a number for a condition".into());
    }
    if text.contains(UNANSWERED)
        && matches!(plain::is_open(case, &query.sql, &asked.answer, None).await, Ok(true))
    {
        return Fate::Refused("fails for rows that a LIMIT happens not to reach in plain DataFusion".into());
    }
    // Unsupported features are rejected in these words.
    match text.find("is not supported yet") {
        None => Fate::Failed(text),
        Some(end) => {
            let line = text[..end].rsplit('\n').next().unwrap_or_default();
            let what = line.rsplit(": ").next().unwrap_or_default();
            Fate::Refused(format!("not supported yet: {}", what.trim()))
        }
    }
}

/// Runs a case. If it fails as a whole, runs it again in halves, until the responsible query is found.
async fn examine(
    case: &Case,
    number: usize,
    seed: u64,
    setup: &oracle::Setup,
    counts: &mut Counts,
) -> Examined {
    let examined = oracle::examine(case, number, seed, setup, counts).await;
    let breaks = examined.findings.iter().any(|finding| finding.query.is_none());
    if !breaks || case.queries.len() < 2 {
        return examined;
    }
    let mut all = Examined::default();
    let middle = case.queries.len() / 2;
    for (from, to) in [(0, middle), (middle, case.queries.len())] {
        let half = Case { queries: case.queries[from..to].to_vec(), ..case.clone() };
        let found = Box::pin(examine(&half, number, seed, setup, counts)).await;
        all.answers.extend(found.answers.into_iter().map(|(place, answer)| (place + from, answer)));
        all.findings.extend(found.findings.into_iter().map(|mut finding| {
            finding.query = finding.query.or_else(|| half.queries.first().cloned());
            finding
        }));
    }
    all
}
