//! Commands to run by hand with `cargo run -p millstream-testkit -- …`:
//!
//! - `fuzz [MINUTES] [FILTER]` runs the replay oracle with fresh seeds over all files of `sql-tests/` whose
//!   name contains FILTER, for 10 minutes by default. A file that fails is skipped from then on. Add a seed
//!   that failed to `oracle::KEPT_SEEDS`. MILLSTREAM_EPOCHS and MILLSTREAM_WHOLE work as in the tests.
//! - `fuzz-wire` sends broken conversations of PostgreSQL clients to the server, with fresh seeds, until the
//!   time is up.
//! - `generate [QUERIES] [EPOCHS] [SEED]` runs random queries over random tables: by default 1,000 queries in
//!   20 epochs from a fresh seed on. Add the seed of a round that failed to `generate::KEPT_SEEDS`; `generate
//!   1 20 SEED` repeats it.
//! - `compatibility [FILTER]` rewrites the states in the lists of `sql-tests/compatibility/` whose name contains FILTER
//!   from what the engine does, prints the changes, and rewrites the page about them as `docs` does.
//! - `docs` rewrites the generated tables of the reference pages.
//! - `suites` is described in the module `suites`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millstream_testkit::oracle::{self, Counts, Setup};
use millstream_testkit::{compatibility, docs, drive, generate, slt, suites, wire};

const USAGE: &str = "usage: millstream-testkit fuzz [MINUTES] [FILTER]
       millstream-testkit fuzz-wire [MINUTES]
       millstream-testkit generate [QUERIES] [EPOCHS] [SEED]
       millstream-testkit suites [FILTER] [--seeds N] [--share PART] [--list]
       millstream-testkit compatibility [FILTER]
       millstream-testkit docs";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["docs"] => rewrite_docs(),
        ["compatibility"] => rewrite_states(""),
        ["compatibility", filter] => rewrite_states(filter),
        ["suites", ref options @ ..] => suites::by_hand::run(options),
        ["fuzz"] => fuzz_for("10", ""),
        ["fuzz", minutes] => fuzz_for(minutes, ""),
        ["fuzz", minutes, filter] => fuzz_for(minutes, filter),
        ["fuzz-wire"] => fuzz_wire("10"),
        ["fuzz-wire", minutes] => fuzz_wire(minutes),
        ["generate"] => generated("1000", "20", None),
        ["generate", queries] => generated(queries, "20", None),
        ["generate", queries, epochs] => generated(queries, epochs, None),
        ["generate", queries, epochs, seed] => generated(queries, epochs, Some(seed)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Sends broken conversations to the server, with seeds from the clock.
fn fuzz_wire(minutes: &str) -> drive::Result<()> {
    let minutes: f64 = minutes.parse().map_err(|_| format!("{minutes} is no number of minutes"))?;
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() * 1_000_000;
    println!("from seed {seed} on");
    let time = Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| format!("{minutes}: {error}"))?;
    let until = Instant::now() + time;
    let done = drive::block_on(wire::fuzz::fuzz(seed, u64::MAX, Some(until)))?;
    println!("{done} broken conversations");
    Ok(())
}

fn rewrite_states(filter: &str) -> drive::Result<()> {
    let changes = drive::block_on(compatibility::rewrite(&slt::project_root(), filter))?;
    for change in &changes {
        println!("{change}");
    }
    println!("{} states changed", changes.len());
    rewrite_docs()
}

fn rewrite_docs() -> drive::Result<()> {
    let changed = docs::rewrite(&slt::project_root())?;
    match changed.is_empty() {
        true => println!("all tables are as the code says"),
        false => println!("rewrote {}", changed.join(", ")),
    }
    Ok(())
}

fn fuzz_for(minutes: &str, filter: &str) -> drive::Result<()> {
    let number = minutes.parse().ok().map(|minutes: f64| Duration::try_from_secs_f64(minutes * 60.0));
    let Some(Ok(time)) = number else {
        return Err(format!("MINUTES is '{minutes}', but a number above zero was expected"));
    };
    fuzz(time, filter)
}

fn fuzz(time: Duration, filter: &str) -> drive::Result<()> {
    let root = slt::project_root();
    std::env::set_current_dir(&root).map_err(|error| format!("can't enter {}: {error}", root.display()))?;
    let mut files = slt::files(Path::new("sql-tests"))?;
    files.retain(|(_, name)| name.contains(filter));
    drive::ensure(!files.is_empty(), || format!("no file of sql-tests/ has '{filter}' in its name"))?;
    let start = Instant::now();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut counts = Counts::default();
    let mut failed = Vec::new();
    for seed in since.as_secs().. {
        let setup = Setup { seeds: vec![seed], kept: false, ..Setup::from_environment() };
        for (path, name) in std::mem::take(&mut files) {
            if start.elapsed() > time {
                break;
            }
            let (found, result) = drive::block_on(async { Ok(oracle::check(&path, &name, &setup).await) })?;
            counts.add(&found);
            match result {
                Ok(()) => files.push((path, name)),
                Err(failures) => {
                    println!("seed {seed} fails, {name} is left out from here on:\n{failures}\n");
                    failed.push(format!("{name} with seed {seed}"));
                }
            }
        }
        if start.elapsed() > time || files.is_empty() {
            break;
        }
        println!("seed {seed} is done");
    }
    println!("{counts}");
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

fn generated(queries: &str, epochs: &str, seed: Option<&str>) -> drive::Result<()> {
    let number = |what: &str, text: &str| -> drive::Result<u64> {
        text.parse().map_err(|_| format!("{what} is '{text}', but a number was expected"))
    };
    let setup = generate::Setup { epochs: number("EPOCHS", epochs)? as usize, ..generate::Setup::default() };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = seed.map_or(Ok(since.as_secs()), |seed| number("SEED", seed))?;
    println!("from seed {seed} on");
    // A query that panics is reported below as a failure; its backtrace would fill the screen.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let start = Instant::now();
    let (counts, failures) = generate::run_rounds(number("QUERIES", queries)? as usize, &setup, seed);
    println!("{counts}  {failures} failures, {} s", start.elapsed().as_secs());
    let patience = Duration::from_secs(10);
    for reason in drive::block_on(async { Ok(generate::reasons(&counts, patience).await) })? {
        println!("--- {reason}\n");
    }
    drive::ensure(failures == 0, || format!("{failures} failures"))
}
