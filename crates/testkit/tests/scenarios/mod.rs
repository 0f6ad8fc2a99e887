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
mod extended;
mod failing;
mod feeds;
mod files;
mod filled_tables;
mod followed;
mod forgotten;
mod freed;
mod hearing;
mod history;
mod identities;
mod in_order;
mod interval_joins;
mod into_tables;
mod kafka;
mod kafka_formats;
mod kafka_losses;
mod kafka_operation;
mod kafka_sink;
mod kafka_tables;
mod kafka_topics;
mod kept_state;
mod library;
mod machine;
mod memory;
mod merged_rows;
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
mod shared_parts;
mod starting;
mod stores;
mod subscriptions;
mod threads;
mod time_joins;
mod timeouts;
mod together;
mod transactions;
mod unread;
mod watching;
mod web;
mod web_pages;
mod widened;

use std::path::Path;

use millstream_testkit::drive;

/// A scenario with its name.
pub type Scenario = (&'static str, fn() -> drive::Result<()>);

/// The scenarios of each module.
const MODULES: &[&[Scenario]] = &[
    altering::ALL,
    bad_input::ALL,
    batches::ALL,
    beginning::ALL,
    begun_apart::ALL,
    behind::ALL,
    catalogs::ALL,
    plans::ALL,
    changes::ALL,
    clocks::ALL,
    conformance::ALL,
    copying::ALL,
    checkpoints::ALL,
    crashes::ALL,
    dead_letters::ALL,
    disk::ALL,
    errors::ALL,
    extended::ALL,
    failing::ALL,
    feeds::ALL,
    files::ALL,
    filled_tables::ALL,
    followed::ALL,
    closing::ALL,
    complexity::ALL,
    forgotten::ALL,
    freed::ALL,
    hearing::ALL,
    identities::ALL,
    history::ALL,
    in_order::ALL,
    interval_joins::ALL,
    into_tables::ALL,
    kafka::ALL,
    kafka_formats::ALL,
    kafka_losses::ALL,
    kafka_operation::ALL,
    kafka_sink::ALL,
    kafka_tables::ALL,
    kafka_topics::ALL,
    kept_state::ALL,
    library::ALL,
    memory::ALL,
    merged_rows::ALL,
    objects::ALL,
    pace::ALL,
    panics::ALL,
    partitions::ALL,
    passing::ALL,
    patterns::ALL,
    postgres::ALL,
    put_late::ALL,
    reads_apart::ALL,
    reads_shared::ALL,
    receivers::ALL,
    renamed::ALL,
    widened::ALL,
    replay::ALL,
    server::ALL,
    sessions::ALL,
    shared::ALL,
    shared_parts::ALL,
    starting::ALL,
    stores::ALL,
    subscriptions::ALL,
    threads::ALL,
    time_joins::ALL,
    transactions::ALL,
    timeouts::ALL,
    together::ALL,
    unread::ALL,
    watching::ALL,
    web::ALL,
    web_pages::ALL,
];

/// Returns every scenario.
pub fn all() -> Vec<Scenario> {
    MODULES.concat()
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
