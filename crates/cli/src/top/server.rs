//! A connection to a server, and the statements that read its system tables.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};

use crate::top::address::Address;
use crate::top::details::{Details, Object};
use crate::top::reading::{Metrics, Reading, Row, clean};

/// Maximum time until a server has admitted the program.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Maximum time until a server has answered.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The values of metrics. The buckets of histograms are many, and a status has its own table.
const METRICS: &str = "SELECT name, labels, value FROM millstream.metrics \
     WHERE name NOT LIKE '%\\_bucket' AND name <> 'millstream_query_status'";

const SOURCES: &str = "SELECT name, status, reason FROM millstream.sources ORDER BY name";

const QUERIES: &str = "SELECT 'materialized view' AS kind, name, status, reason FROM millstream.materialized_views \
     UNION ALL SELECT 'stream', name, status, reason FROM millstream.streams ORDER BY name";

const SINKS: &str = "SELECT name, status, reason FROM millstream.sinks ORDER BY name";

const PROBLEMS: &str = "SELECT level, kind, object, message, statement FROM millstream.problems";

/// Facts of the engine as one row.
const FACTS: &str = "SELECT extract(epoch FROM now() - pg_postmaster_start_time()) AS uptime";

/// The reason why a server could not be reached or did not answer, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    message: String,
    /// True if the connection can be used further: a statement failed.
    is_answer: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A connection.
#[derive(Debug)]
pub struct Server {
    client: Client,
    address: Address,
    /// The names of objects that are shown in another way, by how they are shown.
    names: Mutex<BTreeMap<String, String>>,
}

impl Server {
    /// Connects. The user is `PGUSER`, with `PGPASSWORD` if the server wants one.
    pub async fn connect(address: &Address) -> Result<Server, Failure> {
        let mut config = Config::new();
        config.host(&address.host).port(address.port).application_name("millstream top");
        config.user(std::env::var("PGUSER").as_deref().unwrap_or("millstream"));
        if let Ok(password) = std::env::var("PGPASSWORD") {
            config.password(password);
        }
        config.dbname("millstream");
        let connected = timeout(CONNECT_MAX, config.connect(NoTls)).await.map_err(|_| {
            let wait = CONNECT_MAX.as_secs();
            refused(
                address,
                &format!("did not answer within {wait} s: is it the address of a Millstream server?"),
            )
        })?;
        let (client, connection) = connected.map_err(|error| refused(address, &connect_reason(&error)))?;
        // The task ends with the client. Any other end is an error for the next user of the client.
        tokio::spawn(connection);
        Ok(Server { client, address: address.clone(), names: Mutex::default() })
    }

    /// Reads the state of the server.
    pub async fn read(&self) -> Result<Reading, Failure> {
        self.names().clear();
        let mut tables = self.ask(&[METRICS, SOURCES, QUERIES, SINKS, PROBLEMS, FACTS]).await?.into_iter();
        let mut next = || tables.next().unwrap_or_default();
        Ok(Reading {
            at: Instant::now(),
            metrics: Metrics::of(&next()),
            sources: next(),
            queries: next(),
            sinks: next(),
            problems: next(),
            facts: next().pop().unwrap_or_default(),
        })
    }

    /// Reads the details of an object. A failed statement is part of the details: the object may be gone.
    pub async fn details(&self, object: &Object) -> Result<Details, Failure> {
        let name = self.names().get(&object.name).cloned();
        let statements = object.statements(name.as_deref().unwrap_or(&object.name));
        let asked = self.ask(&[&statements[0], &statements[1]]).await;
        match asked {
            Ok(mut tables) => {
                let rows = tables.pop().unwrap_or_default();
                Ok(Details::new(object.clone(), tables.pop().unwrap_or_default(), rows))
            }
            Err(failure) if failure.is_answer => Ok(Details::failed(object.clone(), failure.message)),
            Err(failure) => Err(failure),
        }
    }

    /// Runs statements, and returns the rows of each.
    async fn ask(&self, statements: &[&str]) -> Result<Vec<Vec<Row>>, Failure> {
        let answers = try_join_all(statements.iter().map(|sql| self.client.simple_query(sql)));
        let answers = timeout(ANSWER_MAX, answers).await.map_err(|_| {
            let wait = ANSWER_MAX.as_secs();
            refused(
                &self.address,
                &format!("did not answer within {wait} s: it may be overloaded, or stopped (SIGSTOP)"),
            )
        })?;
        let answers = answers.map_err(|error| Failure {
            message: refused(&self.address, &answer_reason(&error)).message,
            is_answer: error.as_db_error().is_some_and(|error| error.severity() == "ERROR"),
        })?;
        let mut names = self.names();
        Ok(answers.iter().map(|answer| rows(answer, &mut names)).collect())
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the rows of an answer, with the columns that are not NULL. Keeps names of objects that can't be shown as they
/// are.
fn rows(answer: &[SimpleQueryMessage], names: &mut BTreeMap<String, String>) -> Vec<Row> {
    let row = |message: &SimpleQueryMessage| {
        let SimpleQueryMessage::Row(row) = message else { return None };
        let cell = |(at, column): (usize, &tokio_postgres::SimpleColumn)| {
            let value = row.try_get(at).ok().flatten()?;
            let shown = clean(value);
            if column.name() == "name" && shown != value {
                names.insert(shown.clone(), value.to_owned());
            }
            Some((column.name().to_owned(), shown))
        };
        Some(row.columns().iter().enumerate().filter_map(cell).collect::<BTreeMap<_, _>>())
    };
    answer.iter().filter_map(row).collect()
}

fn refused(address: &Address, reason: &str) -> Failure {
    Failure { message: format!("the server at {address} {reason}"), is_answer: false }
}

/// Returns the reason why no connection was made.
fn connect_reason(error: &Error) -> String {
    let Some(answer) = error.as_db_error() else {
        let kind = error.to_string();
        let cause = clean(&error.source().map_or_else(|| kind.clone(), |cause| cause.to_string()));
        return match cause.as_str() {
            // An answer of another protocol, such as HTTP, is a message of a wrong length, or of an unknown type.
            _ if cause == "bytes remaining on stream" || kind.contains("parsing") || kind.contains("unexpected") => {
                "does not speak PostgreSQL's protocol: is it the address of the web page? --host names the other address \
                 that `millstream server` prints"
                    .to_owned()
            }
            "password missing" => {
                "wants a password: set PGPASSWORD, and PGUSER if you are not \"millstream\" there".to_owned()
            }
            _ => format!(
                "can't be reached: {cause}; does `millstream server` run there? It prints its address, and --host names it"
            ),
        };
    };
    let message = clean(answer.message());
    let advice = match answer.code() {
        &SqlState::CANNOT_CONNECT_NOW => ": it is starting or ending; try again in a moment",
        &SqlState::TOO_MANY_CONNECTIONS => ": end other clients, and try again",
        &SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            ": set PGUSER and PGPASSWORD to those of a user who may read millstream.metrics"
        }
        &SqlState::INVALID_CATALOG_NAME => {
            ": it seems to be PostgreSQL, and not a Millstream server; name another --host"
        }
        _ => "",
    };
    format!("refused the connection: {message}{advice}")
}

/// Returns the reason why a statement failed.
fn answer_reason(error: &Error) -> String {
    match error.as_db_error() {
        Some(answer) => {
            let message = clean(answer.message());
            let tables =
                [&SqlState::UNDEFINED_TABLE, &SqlState::INVALID_SCHEMA_NAME, &SqlState::UNDEFINED_COLUMN];
            // An object's own statements name it; those of a reading name the schema.
            if tables.contains(&answer.code()) && message.contains("millstream.") {
                return format!(
                    "is no Millstream server, or an older one: {message}; `top` and the server should have one version"
                );
            }
            format!("can't answer: {message}")
        }
        None if error.is_closed() => "has closed the connection".to_owned(),
        None => {
            let cause = error.source().map_or_else(|| error.to_string(), |cause| cause.to_string());
            format!("can't be asked: {}", clean(&cause))
        }
    }
}
