//! A connection to the database, with a timeout on every operation.

use std::time::Duration;

use millstream_connect::{Error, Result};
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row};

use crate::failure;
use crate::options::Settings;

/// Time that an answer may take beyond the server's own limit on a statement.
const GRACE: Duration = Duration::from_secs(5);

/// A parameter of a statement with its type.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A connection. It is dropped after any failure, and the server then rolls back the open transaction.
#[derive(Debug)]
pub(crate) struct Connection {
    client: Client,
    sink: String,
    timeout: Duration,
    /// The statements that begin a transaction.
    begin: String,
}

impl Connection {
    pub(crate) async fn open(settings: &Settings) -> Result<Connection> {
        let doing = format!("connect to {}", settings.server());
        let mut config = settings.config.clone();
        if let Some(file) = &settings.password_file {
            config.password(password(&settings.sink, file).await?);
        }
        // A server may accept a connection and then stay silent.
        let patience = settings.connect_timeout * config.get_hosts().len().max(1) as u32;
        let connected = timeout(patience, config.connect(NoTls)).await.map_err(|_| {
            Error::External(format!(
                "sink '{}' could not {doing}: it did not answer within {patience:?}",
                settings.sink
            ))
        })?;
        let (client, connection) = connected.map_err(|error| failure::of(&settings.sink, &doing, &error))?;
        // The task ends when the client is dropped. Any other end is an error for the next user of the
        // client.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of a sink has ended");
            }
        });
        // The settings apply only to this transaction, since a pooler may share the server's connection. A
        // vanished client holds its locks no longer than a statement may take.
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = {statement}; \
             SET LOCAL lock_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {statement}; \
             SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'",
            settings.lock_timeout.as_millis(),
            statement = settings.statement_timeout.as_millis(),
        );
        Ok(Connection {
            client,
            sink: settings.sink.clone(),
            timeout: settings.statement_timeout.saturating_add(GRACE),
            begin,
        })
    }

    /// Returns true if the server has ended the connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Waits for an answer; messages name the operation `doing`.
    async fn answer<T>(
        &self,
        doing: &str,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        match timeout(self.timeout, answer).await {
            Ok(answer) => answer.map_err(|error| failure::of(&self.sink, doing, &error)),
            Err(_) => Err(Error::External(format!(
                "sink '{}' could not {doing}: the database did not answer within {:?}",
                self.sink, self.timeout
            ))),
        }
    }

    pub(crate) async fn begin(&self) -> Result<()> {
        self.answer("begin a transaction", self.client.batch_execute(&self.begin)).await
    }

    pub(crate) async fn commit(&self) -> Result<()> {
        self.answer("commit a transaction", self.client.batch_execute("COMMIT")).await
    }

    /// Runs a statement without parameters.
    pub(crate) async fn run(&self, doing: &str, sql: &str) -> Result<()> {
        self.answer(doing, self.client.batch_execute(sql)).await
    }

    /// Runs a statement in one round trip, without preparing it. Returns the number of changed rows.
    pub(crate) async fn change(&self, doing: &str, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64> {
        self.answer(doing, self.client.execute_typed(sql, parameters)).await
    }

    /// Returns the rows of a query.
    pub(crate) async fn rows(&self, doing: &str, sql: &str, texts: &[&str]) -> Result<Vec<Row>> {
        let texts: Vec<Parameter<'_>> =
            texts.iter().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT)).collect();
        self.answer(doing, self.client.query_typed(sql, &texts)).await
    }
}

/// Returns a value of a row that this crate has queried.
pub(crate) fn value<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T> {
    row.try_get(column).map_err(|error| {
        Error::Bug(format!("column {column} of an answer of PostgreSQL is not what was asked for: {error}"))
    })
}

async fn password(sink: &str, file: &str) -> Result<String> {
    let path = file.to_string();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
    let read = read.map_err(|error| Error::Bug(format!("reading a file stopped: {error}")))?;
    let text = read.map_err(|error| {
        Error::External(format!("sink '{sink}' could not read its password from '{file}': {error}"))
    })?;
    Ok(text.lines().next().unwrap_or_default().to_string())
}
