//! The lists of `sql-tests/compatibility/`: the functions, operators, types and statements of other systems, each
//! with an example, the result that the other system gives, and its state in this engine.
//!
//! `README.md` in that folder describes the format. A test runs every example, so a state can't go stale; the
//! command [`COMMAND`] rewrites the states from what the engine does. [`page`] makes the tables of
//! `docs/sql/compatibility.md`.

mod list;
pub mod page;
mod run;

use std::fs;
use std::path::{Path, PathBuf};

pub use list::{Entry, Example, List, State, Table};
pub use run::{Change, check, compare};

use crate::drive;

/// The command that rewrites the states of all lists.
pub const COMMAND: &str = "cargo run -p millstream-testkit -- compatibility";

/// The folder of the lists, relative to the root of the repository.
const FOLDER: &str = "sql-tests/compatibility";

/// Another system whose SQL people already have.
#[derive(Clone, Copy, Debug)]
pub struct System {
    /// Its folder below `sql-tests/compatibility/`.
    pub folder: &'static str,
    /// Its name and version.
    pub name: &'static str,
}

/// All systems, in the order of the page.
pub const SYSTEMS: [System; 3] = [
    System { folder: "postgresql", name: "PostgreSQL 15" },
    System { folder: "spark", name: "Spark SQL 4.3" },
    System { folder: "flink", name: "Flink SQL 2.3" },
];

/// Returns the files of a system's lists below `root`, sorted by name.
pub fn files(root: &Path, system: System) -> drive::Result<Vec<PathBuf>> {
    let folder = root.join(FOLDER).join(system.folder);
    let entries =
        fs::read_dir(&folder).map_err(|error| format!("can't list {}: {error}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| format!("can't list {}: {error}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns every list with its path and its name, such as `postgresql/9.04-string`.
pub fn all(root: &Path) -> drive::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for system in SYSTEMS {
        for path in files(root, system)? {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let name = format!("{}/{stem}", system.folder);
            found.push((path, name));
        }
    }
    Ok(found)
}

/// Reads the list at `path`.
pub fn read(path: &Path) -> drive::Result<List> {
    let text = fs::read_to_string(path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
    List::parse(&text).map_err(|error| format!("{}:{error}", path.display()))
}

/// Rewrites the states in the lists whose name contains `filter`; returns the changes.
pub async fn rewrite(root: &Path, filter: &str) -> drive::Result<Vec<Change>> {
    let mut changes = Vec::new();
    for (path, name) in all(root)? {
        if !name.contains(filter) {
            continue;
        }
        let mut list = read(&path)?;
        let found = compare(&name, &mut list).await?;
        if !found.is_empty() {
            fs::write(&path, list.to_string())
                .map_err(|error| format!("can't write {}: {error}", path.display()))?;
        }
        changes.extend(found);
    }
    Ok(changes)
}
