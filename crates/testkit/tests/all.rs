//! All tests that need all crates together, one trial each:
//!
//! - the files of `sql-tests/` unchanged,
//! - the same files and DataFusion's own under the replay oracle,
//! - random queries,
//! - scenarios,
//! - the examples of the lists of other systems' functions,
//! - the checks of the sources and the generated tables of the documentation.
//!
//! `cargo test -p millstream-testkit -- slt::statement` runs a part by its name; see `oracle` for its
//! settings.

mod scenarios;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Trial};
use millstream_testkit::oracle::{self, Counts, Setup};
use millstream_testkit::suites::report::{self, FileCounts};
use millstream_testkit::watchdog::{note_panics, panics, slowest, trial, watch};
use millstream_testkit::{compatibility, docs, drive, generate, operations, slt, suites, tidy, tpch, wire};

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let root = slt::project_root();
    if let Err(error) = std::env::set_current_dir(&root) {
        eprintln!("can't enter {}: {error}", root.display());
        return ExitCode::FAILURE;
    }
    let files = match slt::files(Path::new("sql-tests")) {
        Ok(files) => files,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let counts = Arc::new(Mutex::new(Counts::default()));
    let mut trials = Vec::new();
    for (path, name) in files {
        trials.push(plain(path.clone(), &name));
        trials.extend(over_the_wire(path.clone(), &name));
        trials.push(replayed(path, name, &counts));
    }
    for (name, check) in tidy::checks() {
        let root = root.clone();
        trials.push(trial(format!("tidy::{name}"), move || check(&root)));
    }
    let lists = generated(&root).and_then(|trials| Ok((trials, compatibility_trials(&root)?)));
    match lists {
        Ok((docs, lists)) => trials.extend(docs.into_iter().chain(lists)),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    let at = root.clone();
    trials.push(trial("docs::operations".to_string(), move || operations::check(&at)));
    let step = if drive::all_seeds() { 1 } else { 3 };
    trials.extend(generate::KEPT_SEEDS.iter().step_by(step).map(|seed| random_queries(*seed)));
    for (name, scenario) in scenarios::all() {
        trials.push(trial(format!("scenario::{name}"), scenario));
    }
    trials.extend(tpch_trials(&counts));
    let suites: Arc<Mutex<Vec<FileCounts>>> = Arc::default();
    trials.extend(suite_trials(&suites));
    watch();
    note_panics();
    let mut arguments = Arguments::from_args();
    // More than there are cores, since many trials wait for a time or for another process.
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    arguments.test_threads.get_or_insert(cores + cores.div_ceil(2));
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Ok(counts) = counts.lock()
        && !counts.is_empty()
    {
        println!("{counts}");
    }
    if let Ok(suites) = suites.lock()
        && !suites.is_empty()
    {
        println!("DataFusion's suites, a sample:\n{}", report::markdown(&suites));
    }
    if let Some(slowest) = slowest() {
        println!("{slowest}");
    }
    match panics() {
        Some(panics) => {
            println!("{panics}");
            ExitCode::FAILURE
        }
        None => conclusion.exit_code(),
    }
}

/// Returns trials of DataFusion's own files, one per suite.
fn suite_trials(counts: &Arc<Mutex<Vec<FileCounts>>>) -> Vec<Trial> {
    let suites = match suites::files("") {
        Ok(suites) => suites,
        Err(error) => {
            eprintln!("DataFusion's sqllogictest files are skipped: {error}");
            return Vec::new();
        }
    };
    let trial = |(name, files): (String, Vec<(PathBuf, String)>)| {
        let counts = counts.clone();
        trial(format!("suites::{name}"), move || {
            drive::block_on(async {
                let (found, result) = suites::check_all(&files, &suites::Setup::of_tests()).await;
                if let Ok(mut counts) = counts.lock() {
                    counts.extend(found);
                }
                result
            })
        })
    };
    suites.into_iter().map(trial).collect()
}

/// Returns trials of TPC-H's queries, one each.
fn tpch_trials(counts: &Arc<Mutex<Counts>>) -> Vec<Trial> {
    let files = match tpch::files() {
        Ok(files) => files,
        Err(error) => return vec![trial("tpch::files", move || Err(error))],
    };
    let trial = |(path, name): (PathBuf, String)| {
        let counts = counts.clone();
        trial(format!("tpch::{name}"), move || {
            drive::block_on(async {
                let (found, result) = tpch::check(&path, &name, &Setup::from_environment()).await;
                if let Ok(mut counts) = counts.lock() {
                    counts.add(&found);
                }
                result
            })
        })
    };
    files.into_iter().map(trial).collect()
}

/// Runs the file unchanged.
fn plain(path: PathBuf, name: &str) -> Trial {
    trial(format!("slt::{name}"), move || drive::block_on(slt::run(&path)))
}

/// Runs the file as a PostgreSQL client's statements.
fn over_the_wire(path: PathBuf, name: &str) -> Option<Trial> {
    wire::left_out(name)
        .is_none()
        .then(|| trial(format!("wire::{name}"), move || drive::block_on(wire::run(&path))))
}

/// Runs random queries over random tables; the seed determines them.
fn random_queries(seed: u64) -> Trial {
    trial(format!("generated::kept::seed_{seed}"), move || {
        let check = async { Ok(generate::check(seed, &generate::Setup::default()).await) };
        let (_, messages) = drive::block_on(check)?;
        if messages.is_empty() { Ok(()) } else { Err(messages.join("\n\n")) }
    })
}

/// Checks the generated tables of the reference pages.
fn generated(root: &Path) -> drive::Result<Vec<Trial>> {
    let mut trials = Vec::new();
    for table in docs::tables(root)? {
        let root = root.to_path_buf();
        let name = format!("docs::{}", table.name);
        trials.push(trial(name, move || docs::check(&root, &table)));
    }
    let root = root.to_path_buf();
    trials.push(trial("docs::markers", move || docs::check_markers(&root)));
    Ok(trials)
}

/// Runs the examples of the lists of other systems' functions, one trial a list.
fn compatibility_trials(root: &Path) -> drive::Result<Vec<Trial>> {
    let check = |(path, name): (PathBuf, String)| {
        trial(format!("compatibility::{name}"), move || drive::block_on(compatibility::check(&path, &name)))
    };
    Ok(compatibility::all(root)?.into_iter().map(check).collect())
}

/// Runs the file's queries as maintained views.
fn replayed(path: PathBuf, name: String, counts: &Arc<Mutex<Counts>>) -> Trial {
    let counts = counts.clone();
    trial(format!("oracle::{name}"), move || {
        drive::block_on(async {
            let (found, result) = oracle::check(&path, &name, &Setup::from_environment()).await;
            if let Ok(mut counts) = counts.lock() {
                counts.add(&found);
            }
            result
        })
    })
}
