//! Runs the examples of a list in the engine, as a PostgreSQL client does, and compares their states.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{COMMAND, Example, List, State, read};
use crate::drive;
use crate::wire::Served;

/// The longest time of a statement.
const LIMIT: Duration = Duration::from_secs(60);

/// First words of statements that read. An example with another first word is an expression; the script
/// `client-tests/compatibility.py` has the same words.
const READS: &[&str] = &["SELECT", "WITH", "VALUES", "TABLE", "SHOW", "EXPLAIN", "EXECUTE", "FETCH"];

/// First words of statements that may leave something behind: these examples have an engine of their own.
const WRITES: &[&str] = &[
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CALL",
    "CLOSE",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DISCARD",
    "DO",
    "DROP",
    "END",
    "GRANT",
    "INSERT",
    "LISTEN",
    "LOCK",
    "MERGE",
    "MOVE",
    "NOTIFY",
    "PREPARE",
    "REFRESH",
    "RELEASE",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SET",
    "START",
    "TRUNCATE",
    "UNLISTEN",
    "UPDATE",
];

/// Words of statements whose rows come in any order without ORDER BY.
const UNORDERED: &[&str] = &["GROUP BY", "DISTINCT", "UNION", "INTERSECT", "EXCEPT"];

/// An example whose state isn't the recorded one.
#[derive(Clone, Debug)]
pub struct Change {
    /// The list, the line, the form and the example.
    pub place: String,
    /// The recorded state.
    pub was: State,
    /// The state today.
    pub is: State,
    /// The error of the engine, if the example fails.
    pub error: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: was '{}', is '{}'", self.place, self.was.word(), self.is.word())?;
        if let State::Differs(_, rows) = &self.is {
            write!(f, ", it gives {}", rows.join(" / "))?;
        }
        match &self.error {
            Some(error) => write!(f, ", it fails with: {}", error.lines().next().unwrap_or_default()),
            None => Ok(()),
        }
    }
}

/// Compares the states of the list at `path` with the engine.
pub async fn check(path: &Path, name: &str) -> drive::Result<()> {
    let mut list = read(path)?;
    let text = list.to_string();
    drive::ensure(std::fs::read_to_string(path).ok().as_ref() == Some(&text), || {
        format!("{name}: the list isn't in its form: `{COMMAND}` writes it")
    })?;
    let changes = compare(name, &mut list).await?;
    if changes.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = changes.iter().map(Change::to_string).collect();
    Err(format!("{}\nIf these are right, `{COMMAND}` records them.", lines.join("\n")))
}

/// Sets the states of `list` to those of today; returns those that changed.
pub async fn compare(name: &str, list: &mut List) -> drive::Result<Vec<Change>> {
    let shared = Served::start().await?;
    let mut changes = Vec::new();
    for table in &mut list.tables {
        for entry in &mut table.entries {
            for example in &mut entry.examples {
                let (is, error) = state(shared.port, example).await?;
                if is != example.state {
                    let place = format!("{name}:{}: {}", example.line, entry.name);
                    changes.push(Change { place, was: example.state.clone(), is: is.clone(), error });
                    example.state = is;
                }
            }
        }
    }
    shared.end().await?;
    Ok(changes)
}

/// Returns the state of `example` today, with the error if it fails. A reason stays.
async fn state(port: u16, example: &Example) -> drive::Result<(State, Option<String>)> {
    let ours = rows(port, &example.statements).await?;
    let gives = |rows: &Result<Vec<String>, String>, expected: &[String]| {
        rows.as_ref().is_ok_and(|rows| same(&example.statements, rows, expected))
    };
    if gives(&ours, &example.rows) {
        return Ok((State::There, None));
    }
    match &example.state {
        State::As(statements) if gives(&rows(port, statements).await?, &example.rows) => {
            return Ok((example.state.clone(), None));
        }
        State::Differs(_, recorded) if gives(&ours, recorded) => return Ok((example.state.clone(), None)),
        _ => {}
    }
    let why = match &example.state {
        State::Differs(why, _) | State::Missing(why) => why.clone(),
        State::There | State::As(_) => String::new(),
    };
    Ok(match ours {
        Ok(rows) => (State::Differs(why, rows), None),
        Err(error) => (State::Missing(why), Some(error)),
    })
}

/// Compares two results. The order of rows doesn't count if the last statement leaves it open, such as by GROUP BY.
fn same(statements: &[String], one: &[String], other: &[String]) -> bool {
    let last = statements.last().map(|last| last.to_ascii_uppercase()).unwrap_or_default();
    let open = !last.contains("ORDER BY") && UNORDERED.iter().any(|word| last.contains(word));
    if !open {
        return one == other;
    }
    let sorted = |rows: &[String]| {
        let mut rows = rows.to_vec();
        rows.sort();
        rows
    };
    sorted(one) == sorted(other)
}

/// Returns the rows of the statements; the inner error is the engine's.
async fn rows(shared: u16, statements: &[String]) -> drive::Result<Result<Vec<String>, String>> {
    let statements: Vec<String> = statements.iter().map(|text| statement(text)).collect();
    if !statements.iter().any(|text| WRITES.contains(&first_word(text).as_str())) {
        return Ok(on(shared, &statements).await);
    }
    let own = Served::start().await?;
    let rows = on(own.port, &statements).await;
    own.end().await?;
    Ok(rows)
}

async fn on(port: u16, statements: &[String]) -> Result<Vec<String>, String> {
    let config = format!("host=127.0.0.1 port={port} user=millstream dbname=millstream");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.map_err(text)?;
    let connection = tokio::spawn(connection);
    let mut rows = Vec::new();
    let mut failed = None;
    for statement in statements {
        match tokio::time::timeout(LIMIT, answer(&client, statement)).await {
            Ok(Ok(more)) => rows.extend(more),
            Ok(Err(error)) => failed = Some(error),
            Err(_) => failed = Some(format!("no answer within {} seconds", LIMIT.as_secs())),
        }
        if failed.is_some() {
            break;
        }
    }
    drop(client);
    connection.abort();
    failed.map_or(Ok(rows), Err)
}

/// Returns the rows of a statement as psql prints them without alignment.
async fn answer(client: &Client, statement: &str) -> Result<Vec<String>, String> {
    if first_word(statement) == "COPY" {
        let copied = client.copy_out(statement).await.map_err(text)?;
        let chunks: Vec<_> = copied.try_collect().await.map_err(text)?;
        let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_vec()).collect();
        return Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_string).collect());
    }
    let mut rows = Vec::new();
    for message in client.simple_query(statement).await.map_err(text)? {
        if let SimpleQueryMessage::Row(row) = message {
            let values: Vec<&str> = (0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect();
            rows.extend(values.join("|").split('\n').map(str::to_string));
        }
    }
    Ok(rows)
}

fn text(error: tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_string())
}

/// Returns the statement of an example, which may be an expression.
fn statement(example: &str) -> String {
    let word = first_word(example);
    let called = example[word.len()..].starts_with('(') && !["SELECT", "VALUES"].contains(&word.as_str());
    let known = READS.contains(&word.as_str()) || WRITES.contains(&word.as_str());
    if known && !called { example.to_string() } else { format!("SELECT {example}") }
}

/// Returns the first word in capitals.
fn first_word(text: &str) -> String {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    text[..end].to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_counts_unless_it_is_open() {
        let check = |statement: &str, expect: bool| {
            let rows = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
            assert_eq!(same(&[statement.to_string()], &rows("1 2"), &rows("2 1")), expect);
        };
        check("SELECT DISTINCT a FROM t", true);
        check("SELECT a FROM t GROUP BY a order by a", false);
        check("SELECT unnest(a)", false);
    }

    #[test]
    fn an_expression_becomes_a_select() {
        let check = |example: &str, expect: &str| assert_eq!(statement(example), expect);
        check("1 + 2", "SELECT 1 + 2");
        check("set_bit(x, 1, 0)", "SELECT set_bit(x, 1, 0)");
        check("insert('a', 1)", "SELECT insert('a', 1)");
        check("select 1", "select 1");
        check("VALUES (1)", "VALUES (1)");
        check("SET a = 1", "SET a = 1");
        check("'é'", "SELECT 'é'");
    }
}
