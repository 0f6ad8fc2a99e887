//! Runs the suites from the command line: all files, or those that match a filter, with progress, failures
//! and counts.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use super::report::{self, FileCounts};
use super::{Setup, check, files};
use crate::{drive, oracle, slt};

/// The default number of seeds.
const SEEDS: u64 = 3;

/// The file of the counts.
const LIST: &str = "docs/notes/datafusion-suites.md";

/// The text above the counts in that file.
const HEAD: &str = "# DataFusion's own test files under the replay oracle

Written by `cargo run --release -p millstream-testkit -- suites --list`.

The package `datafusion-sqllogictest` carries the files with which DataFusion tests its SQL. Every query in them that
reads a table is run here as a maintained view: its tables' rows come in random micro-batches, beside rows that go out
again, and after every epoch two views (one created before the rows, one on the way) are compared with the one-shot
query. Over the file's rows the answer is compared with plain DataFusion's too; where that depends on the order of
rows, so that ours is one of several right ones, the query counts as open. Tables whose data files the package lacks
get random rows; constant relations inside queries, such as VALUES, become tables.

";

struct Options {
    filter: String,
    setup: Setup,
    list: bool,
    threads: usize,
}

/// Runs the command with options `[FILTER] [--seeds N] [--share PART] [--threads N] [--shrink N] [--list]`.
pub fn run(words: &[&str]) -> drive::Result<()> {
    let options = options(words)?;
    let root = slt::project_root();
    std::env::set_current_dir(&root).map_err(|error| format!("can't enter {}: {error}", root.display()))?;
    let mut queue: Vec<(PathBuf, String)> = files(&options.filter)?.into_values().flatten().collect();
    drive::ensure(!queue.is_empty(), || format!("no file has '{}' in its name", options.filter))?;
    queue.reverse();
    let queue = Mutex::new(queue);
    let done: Mutex<Vec<FileCounts>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| {
                while let Some((path, name)) = next(&queue) {
                    let started = Instant::now();
                    let counts =
                        drive::block_on(check(&path, &name, &options.setup)).unwrap_or_else(|error| {
                            let mut counts = FileCounts { name: name.clone(), ..FileCounts::default() };
                            counts.failures.push(format!("{name} can't be walked through: {error}"));
                            counts
                        });
                    tell(&counts, started);
                    if let Ok(mut done) = done.lock() {
                        done.push(counts);
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by(|a, b| a.name.cmp(&b.name));
    let mut all = oracle::Counts::default();
    done.iter().for_each(|file| all.add(&file.oracle));
    let text = report::markdown(&done);
    println!("{text}\n{all}");
    if options.list {
        std::fs::write(LIST, format!("{HEAD}{text}"))
            .map_err(|error| format!("can't write {LIST}: {error}"))?;
    }
    let failed: usize = done.iter().map(|file| file.failures.len()).sum();
    if failed == 0 { Ok(()) } else { Err(format!("{failed} queries fail")) }
}

fn next(queue: &Mutex<Vec<(PathBuf, String)>>) -> Option<(PathBuf, String)> {
    queue.lock().ok()?.pop()
}

fn tell(counts: &FileCounts, started: Instant) {
    for failure in &counts.failures {
        println!("FAILED {failure}\n");
    }
    println!(
        "{}: {} of {} queries converted, {} equal, {} fail, {:.1} s",
        counts.name,
        counts.converted,
        counts.queries,
        counts.equal,
        counts.failures.len(),
        started.elapsed().as_secs_f64()
    );
}

fn options(words: &[&str]) -> drive::Result<Options> {
    let mut oracle = oracle::Setup { shrunk_max: 0, ..oracle::Setup::from_environment() };
    oracle.seeds = (1..=SEEDS).collect();
    let mut options =
        Options { filter: String::new(), setup: Setup { oracle, share: 1.0 }, list: false, threads: 2 };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || -> drive::Result<f64> {
            let value = words.next().and_then(|value| value.parse().ok());
            value.ok_or_else(|| format!("a number was expected after {word}"))
        };
        match *word {
            "--seeds" => options.setup.oracle.seeds = (1..=number()? as u64).collect(),
            "--share" => options.setup.share = number()?,
            "--threads" => options.threads = number()? as usize,
            "--shrink" => options.setup.oracle.shrunk_max = number()? as usize,
            "--list" => options.list = true,
            filter if !filter.starts_with('-') => options.filter = filter.to_string(),
            other => return Err(format!("there is no option {other}")),
        }
    }
    Ok(options)
}
