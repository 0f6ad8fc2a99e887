//! Runs one test file in a fresh engine, or rewrites its expected results.

use std::io;
use std::path::{Path, PathBuf};

use millstream::{Engine, Error};
use sqllogictest::{
    AsyncDB, DefaultColumnType, MakeConnection, Normalizer, Record, Runner, TestErrorKind, parse_file,
};

use super::EngineDb;

/// Maximum number of failures reported for a file.
const FAILURES_MAX: usize = 20;

/// The result of a file.
#[derive(Debug, Default)]
pub struct Report {
    /// Number of statements and queries run.
    pub records: usize,
    /// The failures, each with file, line and expected result; empty on success.
    pub failures: Vec<String>,
}

/// Returns the test files in `paths`: files as given, and the `.slt` files in directories, ordered by name.
/// Keeps only files whose path contains `filter`.
pub fn find(paths: &[PathBuf], filter: Option<&str>) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() { search(path, &mut files)? } else { files.push(path.clone()) }
    }
    files.retain(|file| filter.is_none_or(|filter| file.to_string_lossy().contains(filter)));
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    Ok(files)
}

fn search(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = std::fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<PathBuf>>>()?;
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            search(&entry, files)?;
        } else if entry.extension().is_some_and(|extension| extension == "slt") {
            files.push(entry);
        }
    }
    Ok(())
}

/// Runs a file in the engine that `make` creates. A wrong query result doesn't end the file. A failed
/// statement does, since later records depend on it.
pub async fn run_file(path: &Path, make: impl FnOnce() -> Result<Engine, Error>) -> Report {
    let engine = match make() {
        Ok(engine) => engine,
        Err(error) => {
            let failure = format!("{}: the engine can't be started: {error}", path.display());
            return Report { failures: vec![failure], ..Report::default() };
        }
    };
    let mut report = run_file_on(path, connections(&engine)).await;
    if let Err(error) = engine.stop().await {
        report.failures.push(format!("{}: the engine can't be stopped: {error}", path.display()));
    }
    report
}

/// Runs a file over connections to a database.
pub async fn run_file_on<D, M>(path: &Path, connections: M) -> Report
where
    D: AsyncDB<ColumnType = DefaultColumnType>,
    M: MakeConnection<Conn = D>,
{
    let mut report = Report::default();
    match parse_file::<DefaultColumnType>(path) {
        Ok(records) => run_records(path, records, connections, &mut report).await,
        Err(error) => report.failures.push(format!("{}: {}", error.location(), error.kind())),
    }
    report
}

async fn run_records<D, M>(
    path: &Path,
    records: Vec<Record<DefaultColumnType>>,
    connections: M,
    report: &mut Report,
) where
    D: AsyncDB<ColumnType = DefaultColumnType>,
    M: MakeConnection<Conn = D>,
{
    let mut runner = runner(path, connections);
    for record in records {
        match record {
            Record::Halt { .. } => break,
            Record::Statement { .. } | Record::Query { .. } => report.records += 1,
            _ => {}
        }
        let Err(error) = runner.run_async(record).await else { continue };
        report.failures.push(format!(
            "{}: {}",
            error.location(),
            error.kind().display(console::colors_enabled())
        ));
        let goes_on = matches!(
            error.kind(),
            TestErrorKind::QueryResultMismatch { .. }
                | TestErrorKind::QueryResultColumnsMismatch { .. }
                | TestErrorKind::ErrorMismatch { .. }
        );
        if !goes_on || report.failures.len() == FAILURES_MAX {
            report.failures.push(format!("{}: the rest was not run", path.display()));
            break;
        }
    }
    runner.shutdown_async().await;
}

/// Rewrites a file with the results of a fresh engine. Returns true if that changed the file.
pub async fn complete_file(
    path: &Path,
    make: impl FnOnce() -> Result<Engine, Error>,
) -> Result<bool, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let records = parse_file::<DefaultColumnType>(path)
        .map_err(|error| format!("{}: {}", error.location(), error.kind()))?;
    if !records.iter().any(|record| matches!(record, Record::Statement { .. } | Record::Query { .. })) {
        return Ok(false);
    }
    let before = std::fs::read(path).map_err(|error| failed(&error))?;
    let engine = make().map_err(|error| failed(&error))?;
    let mut runner = runner(path, connections(&engine));
    let updated = runner
        .update_test_file(path, " ", validate_values, trim_end, validate_columns)
        .await
        .map_err(|error| failed(&error));
    runner.shutdown_async().await;
    engine.stop().await.map_err(|error| failed(&error))?;
    updated?;
    let after = std::fs::read(path).map_err(|error| failed(&error))?;
    Ok(before != after)
}

/// Returns a factory of connections: each `connection` of a file is a session of the same engine.
fn connections(engine: &Engine) -> impl MakeConnection<Conn = EngineDb> {
    let engine = engine.clone();
    move || std::future::ready(Ok(EngineDb::new(&engine)))
}

fn runner<D, M>(path: &Path, connections: M) -> Runner<D, M>
where
    D: AsyncDB<ColumnType = DefaultColumnType>,
    M: MakeConnection<Conn = D>,
{
    let mut runner = Runner::new(connections);
    runner.with_normalizer(trim_end);
    runner.with_validator(validate_values);
    runner.with_column_validator(validate_columns);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    runner.set_var("__FILE_DIR__".to_owned(), directory.display().to_string());
    runner
}

/// Returns true if the columns have the expected types; `?` matches any type.
#[allow(clippy::ptr_arg, reason = "the type of the function is given")]
pub fn validate_columns(actual: &Vec<DefaultColumnType>, expected: &Vec<DefaultColumnType>) -> bool {
    let fits = |(actual, expected): (&DefaultColumnType, &DefaultColumnType)| {
        actual == expected || [actual, expected].contains(&&DefaultColumnType::Any)
    };
    actual.len() == expected.len() && actual.iter().zip(expected).all(fits)
}

/// Returns true if the rows equal the expected ones, except for white space at the end of lines.
/// `<slt:ignore>` in an expected row matches any text.
pub fn validate_values(normalizer: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    if expected.iter().any(|line| line.contains("<slt:ignore>")) {
        return sqllogictest::default_validator(normalizer, actual, expected);
    }
    let row = |values: &Vec<String>| normalizer(&values.join(" "));
    actual.len() == expected.len() && actual.iter().map(row).eq(expected.iter().map(normalizer))
}

#[allow(clippy::ptr_arg, reason = "the type of the function is given")]
fn trim_end(line: &String) -> String {
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use sqllogictest::ColumnType;

    use super::*;

    #[test]
    fn files_are_found_in_order() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("a")).unwrap();
        for name in ["b.slt", "a/y.slt", "a/x.slt", "a/notes.txt"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let names = |paths: &[PathBuf], filter| {
            let files = find(paths, filter).unwrap();
            let name = |file: &PathBuf| file.strip_prefix(directory.path()).unwrap().display().to_string();
            files.iter().map(name).collect::<Vec<_>>()
        };
        let root = directory.path().to_path_buf();
        assert_eq!(names(std::slice::from_ref(&root), None), ["a/x.slt", "a/y.slt", "b.slt"]);
        assert_eq!(names(std::slice::from_ref(&root), Some("/y")), ["a/y.slt"]);
        assert_eq!(names(&[root.join("a/notes.txt"), root.join("a"), root], None).len(), 4);
    }

    #[test]
    fn types_are_compared() {
        let types = |text: &str| text.chars().filter_map(DefaultColumnType::from_char).collect::<Vec<_>>();
        assert!(validate_columns(&types("IRT"), &types("IR?")));
        assert!(!validate_columns(&types("IRT"), &types("IRI")));
        assert!(!validate_columns(&types("IRT"), &types("IR")));
    }

    #[test]
    fn rows_are_compared_to_the_letter() {
        let check = |actual: &[&str], expected: &str| {
            let actual: Vec<Vec<String>> = vec![actual.iter().map(|value| (*value).to_owned()).collect()];
            validate_values(trim_end, &actual, &[expected.to_owned()])
        };
        assert!(check(&["1", "a b"], "1 a b"));
        assert!(check(&["1", "a "], "1 a"));
        assert!(!check(&["1", "a  b"], "1 a b"));
        assert!(!check(&["  1"], "1"));
        assert!(check(&["1", "12 ms"], "1 <slt:ignore> ms"));
    }
}
