//! The last epoch that a sink has published, stored in the target database: one row for each sink and
//! table. The transaction that publishes an epoch's rows also updates this row.
//!
//! Each transaction updates the row only from the state that this sink knows. If a second engine publishes
//! under the same name, one of the two notices before its rows are committed. The update locks the row
//! until the transaction ends. A reader that obtains the lock therefore knows that no commit is in
//! progress.

use millstream_connect::{Error, Result};
use millstream_delta::Epoch;
use tokio_postgres::types::{ToSql, Type};

use crate::connection::{Connection, Parameter, value};
use crate::options::Settings;

/// The content of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) epoch: Epoch,
    /// The run that has published the epoch; empty if none has.
    pub(crate) writer: String,
    /// True if that run has a data directory.
    pub(crate) is_durable: bool,
}

/// The row of a sink.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    sink: String,
    /// The table that the sink delivers to.
    target: String,
    /// The table of the row, as written in statements.
    pub(crate) table: String,
}

impl Progress {
    /// Creates the table and the row if they don't exist.
    pub(crate) async fn open(connection: &Connection, settings: &Settings, target: &str) -> Result<Progress> {
        let table = spelled(connection, &settings.progress_table).await?;
        let progress = Progress { sink: settings.sink.clone(), target: target.to_string(), table };
        let table = &progress.table;
        // A user who may write to the table may lack the right to create one.
        if !progress.has_table(connection).await? {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {table} (sink text, target text, epoch bigint NOT NULL, \
                 writer text NOT NULL, is_durable boolean NOT NULL, published_at timestamptz NOT NULL, \
                 PRIMARY KEY (sink, target))"
            );
            let made = connection.run(&format!("make table {table}"), &sql).await;
            made.map_err(|error| Error::External(error.to_string()))?;
        }
        let sql = format!(
            "INSERT INTO {table} (sink, target, epoch, writer, is_durable, published_at) \
             VALUES ($1, $2, 0, '', false, now()) ON CONFLICT DO NOTHING"
        );
        let parameters: [Parameter<'_>; 2] = [(&progress.sink, Type::TEXT), (&progress.target, Type::TEXT)];
        connection.change(&format!("change table {table}"), &sql, &parameters).await?;
        Ok(progress)
    }

    /// Fails for a new sink if a sink of the same name has published for an engine with a data directory.
    /// If that is another engine, the two sinks would stop each other. If it is this engine, whose old sink
    /// was dropped, the table would receive the same rows twice.
    pub(crate) async fn check_unused(
        connection: &Connection,
        settings: &Settings,
        target: &str,
    ) -> Result<()> {
        let table = spelled(connection, &settings.progress_table).await?;
        let progress = Progress { sink: settings.sink.clone(), target: target.to_string(), table };
        if !progress.has_table(connection).await? {
            return Ok(());
        }
        match progress.read(connection).await? {
            Some(held) if held.is_durable => Err(progress.is_of_a_directory(&held)),
            _ => Ok(()),
        }
    }

    async fn has_table(&self, connection: &Connection) -> Result<bool> {
        let doing = format!("look at table {}", self.table);
        let found = connection.rows(&doing, "SELECT to_regclass($1) IS NOT NULL", &[&self.table]).await?;
        found.first().map_or(Ok(false), |row| value(row, 0))
    }

    /// Reads the row, after waiting for transactions that change it; `None` if it doesn't exist.
    pub(crate) async fn read(&self, connection: &Connection) -> Result<Option<Held>> {
        let doing = format!("read what it has published from {}", self.table);
        let sql = format!(
            "SELECT epoch, writer, is_durable FROM {} WHERE sink = $1 AND target = $2 FOR UPDATE",
            self.table
        );
        connection.begin().await?;
        let rows = connection.rows(&doing, &sql, &[&self.sink, &self.target]).await?;
        connection.commit().await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let epoch: i64 = value(row, 0)?;
        Ok(Some(Held {
            epoch: Epoch(u64::try_from(epoch).unwrap_or_default()),
            writer: value(row, 1)?,
            is_durable: value(row, 2)?,
        }))
    }

    /// Records within a transaction that `to` is published. Fails if the row isn't `known` any more.
    pub(crate) async fn advance(&self, connection: &Connection, known: &Held, to: &Held) -> Result<()> {
        let sql = format!(
            "UPDATE {} SET epoch = $3::int8, writer = $4, is_durable = $5::bool, published_at = now() \
             WHERE sink = $1 AND target = $2 AND epoch = $6::int8 AND writer = $7",
            self.table
        );
        // Numbers are sent as text too; the statement casts them.
        let texts = [
            self.sink.clone(),
            self.target.clone(),
            to.epoch.to_string(),
            to.writer.clone(),
            to.is_durable.to_string(),
            known.epoch.to_string(),
            known.writer.clone(),
        ];
        let parameters: Vec<Parameter<'_>> =
            texts.iter().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT)).collect();
        let changed =
            connection.change(&format!("say what it publishes in {}", self.table), &sql, &parameters).await?;
        if changed == 1 { Ok(()) } else { Err(self.is_of_another()) }
    }

    /// Returns the error that another engine has published under this name.
    pub(crate) fn is_of_another(&self) -> Error {
        Error::Invalid(format!(
            "sink '{0}' has stopped: another engine has published into {1} under the name '{0}' since (table {2}); stop \
             one of the two, or give its sink another name",
            self.sink, self.target, self.table
        ))
    }

    /// Returns the error of an engine without a data directory: it must not replace one with a data
    /// directory, which would lose its position.
    pub(crate) fn is_of_a_directory(&self, held: &Held) -> Error {
        Error::Invalid(format!(
            "sink '{0}': an engine with a data directory has published up to epoch {3} into {1} under this \
             name; continue with that engine if the sink wasn't dropped there, rename the sink, or discard \
             its progress: DELETE FROM {2} WHERE sink = '{0}' AND \
             target = '{1}'",
            self.sink, self.target, self.table, held.epoch
        ))
    }
}

/// Resolves a name written as in SQL, and quotes its parts where needed.
pub(crate) async fn spelled(connection: &Connection, name: &str) -> Result<String> {
    const SPELL: &str =
        "SELECT (SELECT string_agg(quote_ident(part), '.') FROM unnest(parse_ident($1)) AS part)";
    let rows = connection.rows(&format!("read the name {name}"), SPELL, &[name]).await?;
    match rows.first() {
        Some(row) => value(row, 0),
        None => Err(Error::Bug(format!("PostgreSQL gave no spelling of the name {name}"))),
    }
}
