//! Counts of the queries run, by file and by suite, for people and for docs/notes/datafusion-suites.md.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::known::Entry;
use super::walk::Asked;
use super::{Fate, package};
use crate::oracle::Counts;
use crate::oracle::convert::Query;

/// The counts of a file.
#[derive(Clone, Debug, Default)]
pub struct FileCounts {
    /// Its name.
    pub name: String,
    /// Number of queries in it.
    pub queries: usize,
    /// Number of queries run as views.
    pub converted: usize,
    /// Number of those that equalled the batch after every epoch.
    pub equal: usize,
    /// Number of those whose plain answer depends on the order of rows.
    pub open: usize,
    /// Number of queries that are known to fail, and did.
    pub known: usize,
    /// Number of skipped queries, by reason.
    pub left_out: BTreeMap<String, usize>,
    /// Messages: failures that are not known, and known failures that passed.
    pub failures: Vec<String>,
    /// Feeds, epochs and comparisons.
    pub oracle: Counts,
}

impl FileCounts {
    pub(super) fn new(name: &str) -> FileCounts {
        FileCounts { name: name.to_string(), ..FileCounts::default() }
    }

    /// Skips all queries of a file.
    pub(super) fn left_out_whole(&mut self, path: &Path, reason: &str) {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        self.queries = text.lines().filter(|line| line.starts_with("query ")).count();
        self.left_out.insert(reason.to_string(), self.queries);
    }

    pub(super) fn take(&mut self, query: &Query, asked: &Asked, fate: Fate, known: Option<&Entry>) {
        if let Fate::Refused(what) = fate {
            *self.left_out.entry(what).or_default() += 1;
            return;
        }
        self.converted += 1;
        match (fate, known) {
            (Fate::Differs(_), Some(entry)) if entry.open => {
                self.equal += 1;
                self.open += 1;
            }
            (Fate::Failed(_) | Fate::Differs(_), Some(entry)) if !entry.open => self.known += 1,
            (Fate::Failed(text) | Fate::Differs(text), _) => {
                self.failures.push(format!("{}: {text}", asked.place));
            }
            (_, Some(entry)) if !entry.sometimes => self.failures.push(format!(
                "{}: passes, but known.txt lists it ({}): remove it from the list\n{}",
                asked.place, entry.reason, query.sql
            )),
            (fate, _) => {
                self.equal += 1;
                self.open += usize::from(fate == Fate::Open);
            }
        }
    }
}

/// The counts of all files of a suite.
#[derive(Clone, Debug, Default)]
struct Suite {
    files: usize,
    queries: usize,
    converted: usize,
    equal: usize,
    open: usize,
    known: usize,
    failed: usize,
    left_out: BTreeMap<String, usize>,
}

impl Suite {
    fn add(&mut self, file: &FileCounts) {
        self.files += 1;
        self.queries += file.queries;
        self.converted += file.converted;
        self.equal += file.equal;
        self.open += file.open;
        self.known += file.known;
        self.failed += file.failures.len();
        for (reason, count) in &file.left_out {
            *self.left_out.entry(reason.clone()).or_default() += count;
        }
    }

    fn row(&self, name: &str) -> String {
        let left: usize = self.left_out.values().sum();
        format!(
            "| {name} | {} | {} | {} | {} | {} | {} | {left} |",
            self.files, self.queries, self.converted, self.equal, self.open, self.known
        )
    }
}

/// Formats the counts of all files as Markdown: a table of suites, then the reasons.
pub fn markdown(files: &[FileCounts]) -> String {
    let mut suites: BTreeMap<&str, Suite> = BTreeMap::new();
    let mut all = Suite::default();
    for file in files {
        suites.entry(package::group(&file.name)).or_default().add(file);
        all.add(file);
    }
    let mut text = String::from(
        "| suite | files | queries | converted | equal | of these open in plain DataFusion | known to fail | left out |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (name, suite) in &suites {
        let _ = writeln!(text, "{}", suite.row(name));
    }
    let _ = writeln!(text, "{}", all.row("**all**"));
    text.push_str("\n| left out | why |\n| ---: | --- |\n");
    let mut reasons: Vec<(&String, &usize)> = all.left_out.iter().collect();
    reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), reason.as_str()));
    for (reason, count) in reasons {
        let _ = writeln!(text, "| {count} | {} |", reason.replace('|', "\\|"));
    }
    if all.failed > 0 {
        let _ = writeln!(text, "\n{} fail.", all.failed);
    }
    text
}
