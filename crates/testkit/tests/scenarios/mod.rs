//! Scenarios: tests that need several parts at once.

mod altering;
mod bad_input;
mod batches;
mod beginning;
mod begun_apart;
mod behind;
mod catalogs;
mod changes;
mod checkpoints;
mod clocks;
mod closing;
mod complexity;
mod conformance;
mod copying;
mod crashes;
mod dead_letters;
mod disk;
mod errors;
mod failing;
mod feeds;
mod files;
mod followed;
mod forgotten;
mod freed;
mod hearing;
mod history;
mod in_order;
mod interval_joins;
mod into_tables;
mod kafka;
mod kafka_formats;
mod kafka_operation;
mod kafka_secured;
mod kafka_sink;
mod kafka_tables;
mod kafka_topics;
mod kept_state;
mod library;
mod machine;
mod memory;
mod objects;
mod pace;
mod panics;
mod partitions;
mod passing;
mod patterns;
mod plans;
mod postgres;
mod put_late;
mod reads_apart;
mod reads_shared;
mod receivers;
mod renamed;
mod replay;
mod server;
mod sessions;
mod shared;
mod starting;
mod stores;
mod subscriptions;
mod threads;
mod time_joins;
mod timeouts;
mod together;
mod transactions;
mod unread;
mod web;
mod widened;

use std::path::Path;

use millstream_testkit::drive;

/// A scenario with its name.
pub type Scenario = (&'static str, fn() -> drive::Result<()>);

/// Returns every scenario.
pub fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    all.extend_from_slice(altering::ALL);
    all.extend_from_slice(bad_input::ALL);
    all.extend_from_slice(batches::ALL);
    all.extend_from_slice(beginning::ALL);
    all.extend_from_slice(begun_apart::ALL);
    all.extend_from_slice(behind::ALL);
    all.extend_from_slice(catalogs::ALL);
    all.extend_from_slice(plans::ALL);
    all.extend_from_slice(changes::ALL);
    all.extend_from_slice(clocks::ALL);
    all.extend_from_slice(conformance::ALL);
    all.extend_from_slice(copying::ALL);
    all.extend_from_slice(checkpoints::ALL);
    all.extend_from_slice(crashes::ALL);
    all.extend_from_slice(dead_letters::ALL);
    all.extend_from_slice(disk::ALL);
    all.extend_from_slice(errors::ALL);
    all.extend_from_slice(failing::ALL);
    all.extend_from_slice(feeds::ALL);
    all.extend_from_slice(files::ALL);
    all.extend_from_slice(followed::ALL);
    all.extend_from_slice(closing::ALL);
    all.extend_from_slice(complexity::ALL);
    all.extend_from_slice(forgotten::ALL);
    all.extend_from_slice(freed::ALL);
    all.extend_from_slice(hearing::ALL);
    all.extend_from_slice(history::ALL);
    all.extend_from_slice(in_order::ALL);
    all.extend_from_slice(interval_joins::ALL);
    all.extend_from_slice(into_tables::ALL);
    all.extend_from_slice(kafka::ALL);
    all.extend_from_slice(kafka_formats::ALL);
    all.extend_from_slice(kafka_operation::ALL);
    all.extend_from_slice(kafka_secured::ALL);
    all.extend_from_slice(kafka_sink::ALL);
    all.extend_from_slice(kafka_tables::ALL);
    all.extend_from_slice(kafka_topics::ALL);
    all.extend_from_slice(kept_state::ALL);
    all.extend_from_slice(library::ALL);
    all.extend_from_slice(memory::ALL);
    all.extend_from_slice(objects::ALL);
    all.extend_from_slice(pace::ALL);
    all.extend_from_slice(panics::ALL);
    all.extend_from_slice(partitions::ALL);
    all.extend_from_slice(passing::ALL);
    all.extend_from_slice(patterns::ALL);
    all.extend_from_slice(postgres::ALL);
    all.extend_from_slice(put_late::ALL);
    all.extend_from_slice(reads_apart::ALL);
    all.extend_from_slice(reads_shared::ALL);
    all.extend_from_slice(receivers::ALL);
    all.extend_from_slice(renamed::ALL);
    all.extend_from_slice(widened::ALL);
    all.extend_from_slice(replay::ALL);
    all.extend_from_slice(server::ALL);
    all.extend_from_slice(sessions::ALL);
    all.extend_from_slice(shared::ALL);
    all.extend_from_slice(starting::ALL);
    all.extend_from_slice(stores::ALL);
    all.extend_from_slice(subscriptions::ALL);
    all.extend_from_slice(threads::ALL);
    all.extend_from_slice(time_joins::ALL);
    all.extend_from_slice(transactions::ALL);
    all.extend_from_slice(timeouts::ALL);
    all.extend_from_slice(together::ALL);
    all.extend_from_slice(unread::ALL);
    all.extend_from_slice(web::ALL);
    all
}

/// A small random generator, determined by its seed.
pub struct Random(pub u64);

impl Random {
    /// Returns a number from 0 on, below a bound.
    pub fn below(&mut self, bound: u64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound) as i64
    }
}

/// Returns an event time in SQL.
pub fn time(seconds: i64) -> String {
    format!("(TIMESTAMP '2024-05-01 00:00:00' + INTERVAL '{seconds} seconds')")
}

/// Returns a fresh folder; dropping the value removes it.
pub fn folder() -> drive::Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))
}

/// Writes a file as users should: under a hidden name first, then renamed.
pub fn write(folder: &Path, name: &str, text: &str) -> drive::Result<()> {
    let hidden = folder.join(format!(".{name}"));
    std::fs::write(&hidden, text)
        .and_then(|()| std::fs::rename(&hidden, folder.join(name)))
        .map_err(|error| format!("{name} can't be written: {error}"))
}

/// Returns all lines of all visible files in a folder.
pub fn lines_in(folder: &Path) -> drive::Result<Vec<String>> {
    let fail = |error: std::io::Error| format!("{} can't be read: {error}", folder.display());
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_file() && !hidden {
            lines.extend(std::fs::read_to_string(&path).map_err(fail)?.lines().map(String::from));
        }
    }
    Ok(lines)
}
