//! Runs the replay oracle by hand: `cargo run -p millstream-testkit -- fuzz [MINUTES] [FILTER]`.
//!
//! Takes fresh seeds, one after the other, through all files of `sql-tests/` whose name contains FILTER, until the
//! time is up (10 minutes unless told otherwise) or a seed fails. A seed that failed belongs into
//! `oracle::KEPT_SEEDS`. MILLSTREAM_EPOCHS and MILLSTREAM_WHOLE work as in the tests.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millstream_testkit::oracle::{self, Counts, Setup};
use millstream_testkit::{drive, slt};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().map(String::as_str) != Some("fuzz") {
        eprintln!("usage: millstream-testkit fuzz [MINUTES] [FILTER]");
        return ExitCode::from(2);
    }
    let minutes = match arguments.get(1).map(|text| text.parse::<f64>()) {
        None => 10.0,
        Some(Ok(minutes)) => minutes,
        Some(Err(_)) => {
            eprintln!("MINUTES is '{}', but a number was expected", arguments[1]);
            return ExitCode::from(2);
        }
    };
    match fuzz(Duration::from_secs_f64(minutes * 60.0), arguments.get(2).map_or("", String::as_str)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
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
    for seed in since.as_secs().. {
        let setup = Setup { seeds: vec![seed], ..Setup::from_environment() };
        for (path, name) in &files {
            if start.elapsed() > time {
                println!("{counts}");
                return Ok(());
            }
            let (found, result) = drive::block_on(async { Ok(oracle::check(path, name, &setup).await) })?;
            counts.add(&found);
            result.map_err(|failures| format!("{counts}\nseed {seed} fails:\n{failures}"))?;
        }
        println!("seed {seed} holds");
    }
    Ok(())
}
