//! Finds the files of `sql-tests/` and runs each on a fresh engine.

use std::path::{Path, PathBuf};

use millstream_cli::slt::EngineDb;
use millstream_engine::Engine;
use sqllogictest::{MakeConnection, Runner};

use crate::drive;

/// Millstream's name in `onlyif` and `skipif`.
pub const LABEL: &str = "millstream";

/// Returns the project's top folder; .slt files name their data relative to it.
pub fn project_root() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    crates.ancestors().nth(2).unwrap_or(crates).to_path_buf()
}

/// Returns every .slt file below `folder`: its path, and its name relative to `folder`, sorted by name.
pub fn files(folder: &Path) -> drive::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        let entries =
            std::fs::read_dir(&next).map_err(|error| format!("can't list {}: {error}", next.display()))?;
        for entry in entries {
            let path = entry.map_err(|error| format!("can't list {}: {error}", next.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "slt") {
                let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
                found.push((path, name));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Returns a runner whose connections are sessions of `engine`, for the records of the file at `path`.
pub fn runner(engine: &Engine, path: &Path) -> Runner<EngineDb, impl MakeConnection<Conn = EngineDb>> {
    let engine = engine.clone();
    let mut runner = Runner::new(move || std::future::ready(Ok(EngineDb::new(&engine))));
    let folder = path.parent().unwrap_or(Path::new("."));
    runner.set_var("__FILE_DIR__".to_owned(), folder.display().to_string());
    runner
}

/// Runs one file unchanged.
pub async fn run(path: &Path) -> drive::Result<()> {
    let report = millstream_cli::slt::run_file(path, || millstream_cli::builder().start()).await;
    if report.failures.is_empty() { Ok(()) } else { Err(report.failures.join("\n")) }
}
