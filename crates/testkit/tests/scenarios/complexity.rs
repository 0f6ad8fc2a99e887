//! Deep statements: they work or are rejected, and never end the process.
//!
//! A stack overflow ends the process, so each case runs in a process of its own.

use std::process::Command;
use std::time::Duration;

use millstream_engine::Engine;
use millstream_testkit::drive::{self, Result, ensure};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("deep_statements_are_answered", || each(ALL[0].0, DEEP, answered)),
    ("statements_that_are_too_deep_are_refused", || each(ALL[1].0, REFUSED, refused)),
];

/// The variable that names the case for a child process.
const CASE: &str = "MILLSTREAM_COMPLEX_CASE";

/// Returns the number of terms of a chain. Planning is quadratic in it, mostly in names, and a debug build is slow.
fn terms() -> usize {
    if drive::all_seeds() { 1_000 } else { 400 }
}

/// A name, and a query over `t (a INT, b DOUBLE, s TEXT)`.
type Case = (&'static str, fn() -> String);

const DEEP: &[Case] = &[
    ("sum", || format!("SELECT {} AS x FROM t", chain(terms(), "a", " + "))),
    ("text", || format!("SELECT {} AS x FROM t", chain(terms(), "s", " || "))),
    ("and", || {
        format!("SELECT a FROM t WHERE {}", numbered(terms(), |n| format!("a <> {}", n + 10), " AND "))
    }),
    ("or", || format!("SELECT a FROM t WHERE {}", numbered(terms(), |n| format!("b = {n}"), " OR "))),
    ("casts", || format!("SELECT a{} AS x FROM t", "::int".repeat(terms()))),
    ("union", || chain(terms(), "SELECT a FROM t", " UNION ALL ")),
    ("using", || {
        format!("SELECT a FROM t{}", numbered(terms() / 8, |n| format!(" JOIN t AS t{n} USING (a)"), ""))
    }),
    ("guards", || {
        let condition = (0..20).fold("b > 0".to_string(), |inner, level| match level % 2 {
            0 => format!("1 / b > {level} OR ({inner})"),
            _ => format!("10 / (b + 1) > {level} AND ({inner})"),
        });
        format!("SELECT a FROM t WHERE {condition} OR a = 2")
    }),
    ("divisions", || {
        format!("SELECT a FROM t WHERE {}", numbered(terms(), |n| format!("{n} / b > -1"), " AND "))
    }),
];

const REFUSED: &[Case] = &[
    ("sum", || format!("SELECT {} AS x FROM t", chain(50_000, "a", " + "))),
    ("doubled", || {
        let doubled = |n| format!(", c{} AS (SELECT a FROM c{n} UNION ALL SELECT a FROM c{n})", n + 1);
        format!("WITH c0 AS (SELECT a FROM t){} SELECT count(*) FROM c25", numbered(25, doubled, ""))
    }),
    ("doubled by subqueries", || {
        let doubled = |n| {
            let next = n + 1;
            format!(
                ", c{next} AS (SELECT a FROM c{n} WHERE a IN (SELECT a FROM c{n}) AND a > (SELECT min(a) FROM c{n}))"
            )
        };
        format!("WITH c0 AS (SELECT a FROM t){} SELECT count(*) FROM c25", numbered(25, doubled, ""))
    }),
];

fn chain(count: usize, term: &str, between: &str) -> String {
    vec![term; count].join(between)
}

fn numbered(count: usize, term: impl Fn(usize) -> String, between: &str) -> String {
    (0..count).map(term).collect::<Vec<_>>().join(between)
}

/// Runs each case in a process of its own, or the case of this process.
fn each(trial: &str, cases: &'static [Case], check: fn(&'static str, String) -> Result<()>) -> Result<()> {
    if let Ok(named) = std::env::var(CASE) {
        let found = cases.iter().find(|(name, _)| *name == named);
        return found.map_or(Ok(()), |(name, sql)| check(name, sql()));
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut failed = Vec::new();
    for (name, _) in cases {
        let output = Command::new(&program)
            .args(["--exact", &format!("scenario::{trial}")])
            .env(CASE, name)
            .output()
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            failed.push(format!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&said)));
        }
    }
    ensure(failed.is_empty(), || failed.join("\n"))
}

async fn prepared() -> Result<millstream_engine::Session> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    drive::run_all(
        &mut session,
        &[
            "CREATE TABLE t (a INT, b DOUBLE, s TEXT)",
            "INSERT INTO t VALUES (1, 2.5, 'x'), (2, 7, 'y'), (3, NULL, NULL)",
        ],
    )
    .await?;
    Ok(session)
}

/// Checks that the query is answered, and that its view equals the answer.
fn answered(name: &str, sql: String) -> Result<()> {
    let begun = std::time::Instant::now();
    drive::block_on(async {
        let mut session = prepared().await?;
        let once = drive::lines(&mut session, &sql).await?;
        println!("{name}: read after {:?}", begun.elapsed());
        drive::run(&mut session, &format!("CREATE MATERIALIZED VIEW m AS {sql}")).await?;
        drive::run(&mut session, "INSERT INTO t VALUES (4, 4, 'z')").await?;
        let kept = drive::lines(&mut session, "SELECT * FROM m").await?;
        let again = drive::lines(&mut session, &sql).await?;
        ensure(kept == again && !once.is_empty(), || format!("{kept:?} instead of {again:?}"))?;
        drive::run(&mut session, "DROP MATERIALIZED VIEW m").await?;
        println!("{name}: done after {:?}", begun.elapsed());
        Ok(())
    })?;
    ensure(begun.elapsed() < Duration::from_secs(120), || format!("{name} took {:?}", begun.elapsed()))
}

/// Checks that the query and the view are rejected as too complex, and that the session continues.
fn refused(name: &str, sql: String) -> Result<()> {
    drive::block_on(async {
        let mut session = prepared().await?;
        for sql in [sql.clone(), format!("CREATE MATERIALIZED VIEW m AS {sql}")] {
            let Err(error) = session.execute(&sql).await else { return Err(format!("{name} is taken")) };
            ensure(error.sqlstate() == "54001", || {
                format!("{name}: {} {}", error.sqlstate(), error.message)
            })?;
        }
        drive::run(&mut session, "INSERT INTO t VALUES (4, 4, 'z')").await.map(|_| ())
    })
}
