//! `millstream test`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use console::style;

use super::{complete_file, find, run_file};
use crate::progress::counted;
use crate::stop::Stop;

/// Runs or rewrites the suites at `paths` one after the other, and reports the results. With `quiet`,
/// successful files are only counted.
pub(crate) async fn test(
    paths: &[PathBuf],
    filter: Option<&str>,
    complete: bool,
    quiet: bool,
) -> Result<(), Stop> {
    let files = find(paths, filter)
        .map_err(|error| Stop::external(format_args!("the tests can't be listed: {error}")))?;
    if files.is_empty() {
        let named = filter.map_or_else(String::new, |filter| format!(" with '{filter}' in its path"));
        return Err(Stop::Usage(format!("there is no .slt file{named} in {}", listed(paths))));
    }
    let start = Instant::now();
    let mut summary = Summary { quiet, ..Summary::default() };
    for file in &files {
        if complete { summary.complete(file).await? } else { summary.run(file).await? }
    }
    summary.print(complete, start.elapsed())?;
    if summary.failed > 0 { Err(Stop::Tests) } else { Ok(()) }
}

#[derive(Default)]
struct Summary {
    quiet: bool,
    files: u64,
    failed: u64,
    changed: u64,
    records: u64,
}

impl Summary {
    async fn run(&mut self, file: &Path) -> Result<(), Stop> {
        let start = Instant::now();
        let report = run_file(file, || crate::builder().start()).await;
        self.files += 1;
        self.records += report.records as u64;
        if report.failures.is_empty() {
            let records = counted(report.records as u64, "record");
            let seconds = start.elapsed().as_secs_f64();
            return self.say_good("ok  ", file, &format!("({records}, {seconds:.2} s)"));
        }
        self.failed += 1;
        say(&bad("FAIL"), file, "")?;
        explain(&report.failures)
    }

    async fn complete(&mut self, file: &Path) -> Result<(), Stop> {
        self.files += 1;
        match complete_file(file, || crate::builder().start()).await {
            Ok(true) => {
                self.changed += 1;
                self.say_good("rewritten", file, "")
            }
            Ok(false) => self.say_good("unchanged", file, ""),
            Err(failure) => {
                self.failed += 1;
                say(&bad("FAIL     "), file, "")?;
                explain(&[failure])
            }
        }
    }

    fn say_good(&self, word: &str, file: &Path, more: &str) -> Result<(), Stop> {
        if self.quiet { Ok(()) } else { say(&style(word).green().to_string(), file, more) }
    }

    fn print(&self, complete: bool, time: Duration) -> Result<(), Stop> {
        let files = counted(self.files, "file");
        let failed = self.failed;
        let done = if complete {
            format!("{} rewritten", self.changed)
        } else {
            format!("{} passed", self.files - failed)
        };
        let records = if complete { String::new() } else { format!("; {}", counted(self.records, "record")) };
        let seconds = time.as_secs_f64();
        Ok(writeln!(io::stdout(), "{files}: {done}, {failed} failed{records}; {seconds:.2} s")?)
    }
}

fn say(word: &str, file: &Path, more: &str) -> Result<(), Stop> {
    let line = format!("{word} {} {more}", file.display());
    Ok(writeln!(io::stdout(), "{}", line.trim_end())?)
}

fn explain(failures: &[String]) -> Result<(), Stop> {
    let mut out = io::stdout().lock();
    for failure in failures {
        writeln!(out)?;
        failure.trim_end().lines().try_for_each(|line| writeln!(out, "    {line}"))?;
    }
    Ok(writeln!(out)?)
}

fn bad(word: &str) -> String {
    style(word).red().to_string()
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("'{}'", path.display())).collect::<Vec<_>>().join(", ")
}
