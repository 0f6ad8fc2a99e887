//! The log on standard error.

use super::program;

/// A query that is suspended by a limit.
const SUSPENDED: &str = "SET output_rows_max = 5; CREATE TABLE t (x INT); \
    CREATE MATERIALIZED VIEW v AS SELECT x FROM t WHERE x > 0; INSERT INTO t SELECT x FROM generate_series(1, 9) AS s(x);";

#[test]
fn warnings_are_on_standard_error() {
    let temporary = tempfile::tempdir().unwrap();
    let told = |levels: Option<&str>, arguments: &[&str]| {
        let mut command = program(temporary.path(), arguments);
        levels.map(|levels| command.env("MILLSTREAM_LOG", levels));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (_, shown) = told(None, &["-c", SUSPENDED]);
    let line = shown.lines().find(|line| line.contains("a query is suspended")).unwrap_or(&shown);
    assert!(line.contains("WARN millstream_engine::") && line.contains("output_rows_max"), "{shown}");
    for (levels, arguments) in [(Some("error"), &["-c", SUSPENDED][..]), (None, &["-q", "-c", SUSPENDED])] {
        let (_, shown) = told(levels, arguments);
        assert!(!shown.contains(" WARN "), "{shown}");
    }
    let (code, shown) = told(Some("millstream=loud"), &["-c", "SELECT 1"]);
    assert!(code == Some(2) && shown.contains("MILLSTREAM_LOG is 'millstream=loud'"), "{shown}");
}
