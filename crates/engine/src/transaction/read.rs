//! The reads of statements: current rows, or the snapshot of the open transaction.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;
use futures::future::try_join_all;
use millstream_delta::Timestamp;
use millstream_sql::{Error, Result};

use super::own::{Own, altered};
use super::{Transaction, View};
use crate::catalog::{begins_with, first_columns};
use crate::content::Content;
use crate::engine::Shared;
use crate::event::{Asked, Event, Question};
use crate::jobs;
use crate::run::extended;
use crate::session::Session;
use crate::settings::Settings;

/// The rows of relations, by name.
pub(crate) type Contents = HashMap<String, Vec<RecordBatch>>;

/// The maximum number of rows of a table that are scanned instead of looked up by key.
const SCANNED_ROWS_MAX: usize = 1000;

/// The rows of tables to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// The rows as of an epoch, as SELECT reads them.
    Published,
    /// The rows including later changes by statements, as INSERT, UPDATE and DELETE read them.
    Staged,
}

impl Session {
    /// Returns the settings and the time for statements. Inside a transaction, the time is that of its
    /// snapshot.
    pub(crate) async fn settings(&mut self) -> Result<(Settings, Timestamp)> {
        match &mut self.transaction {
            Some(transaction) => transaction.settings(&self.shared).await,
            None => self.shared.ask(|reply| Event::Ask(Question::Settings { reply })).await,
        }
    }

    /// Returns the rows of relations as SELECT sees them, at least the wanted ones. If `stamped`, rows that
    /// belong to a batch include its columns.
    pub(crate) async fn contents(&mut self, asked: Vec<Asked>, stamped: bool) -> Result<Contents> {
        if asked.is_empty() {
            return Ok(Contents::new());
        }
        if let Some(transaction) = &mut self.transaction {
            return transaction.contents(&self.shared, asked, stamped, Rows::Published).await;
        }
        let names: Vec<String> = asked.iter().map(|asked| asked.name.to_string()).collect();
        let snapshot = self.shared.ask(|reply| Event::Read { relations: asked, stamped, reply }).await?;
        let relations = names.into_iter().zip(snapshot.relations);
        let rows = |(name, content): (String, Content)| async move {
            Ok::<_, Error>((name, content.batches().await?))
        };
        Ok(try_join_all(relations.map(rows)).await?.into_iter().collect())
    }

    /// Wraps rows: their failure fails the open transaction, and they fail on timeout.
    pub(crate) fn watched(&self, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let rows = jobs::with_rows(self.deadline.over(rows));
        let Some(transaction) = &self.transaction else { return rows };
        let failed: Arc<AtomicBool> = transaction.rows_failed();
        let schema = rows.schema();
        let rows = rows.inspect_err(move |_| failed.store(true, Ordering::Release));
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

impl Transaction {
    /// Returns the settings, and the time of the snapshot.
    pub(super) async fn settings(&mut self, shared: &Shared) -> Result<(Settings, Timestamp)> {
        let now = self.view(shared).await?.begun.now;
        let (settings, _) = shared.ask(|reply| Event::Ask(Question::Settings { reply })).await?;
        Ok((settings, now))
    }

    /// Returns the rows of relations in the transaction's snapshot.
    pub(super) async fn contents(
        &mut self,
        shared: &Shared,
        asked: Vec<Asked>,
        stamped: bool,
        rows: Rows,
    ) -> Result<Contents> {
        let view = self.view(shared).await?;
        let mut contents = Contents::new();
        let mut relations = Vec::new();
        for asked in asked {
            match view.kept(shared, &asked, rows).await? {
                Some(kept) => {
                    contents.insert(asked.name.to_string(), kept);
                }
                None => relations.push(asked),
            }
        }
        if !relations.is_empty() {
            let (transaction, asked) = (view.begun.guard.number, relations.clone());
            let event = |reply| Event::ReadAt { transaction, relations: asked, stamped, reply };
            let snapshot = shared.ask(event).await?;
            for (Asked { name, wanted }, content) in relations.into_iter().zip(snapshot.relations) {
                let rows = content.batches().await?;
                // Only rows without the columns of their batch are cached.
                if !stamped && wanted.is_empty() {
                    view.read.insert(name.clone(), rows.clone());
                }
                contents.insert(name.to_string(), rows);
            }
        }
        Ok(contents)
    }

    /// Returns the snapshot, which is taken on first use.
    pub(super) async fn view(&mut self, shared: &Shared) -> Result<&mut View> {
        if self.view.is_none() {
            let begun = shared.ask(|reply| Event::Begin { reply }).await?;
            self.view = Some(View { begun, read: HashMap::new(), own: Default::default(), own_bytes: 0 });
        }
        self.view.as_mut().ok_or_else(|| Error::bug("it was made above"))
    }
}

impl View {
    /// Returns cached rows, or tables with the transaction's own changes. Returns `None` if the loop must be
    /// asked.
    async fn kept(&self, shared: &Shared, asked: &Asked, rows: Rows) -> Result<Option<Vec<RecordBatch>>> {
        let Asked { name, wanted } = asked;
        if let Some(read) = self.read.get(name) {
            return Ok(Some(read.clone()));
        }
        let Some((name, table)) = self.begun.tables.get_key_value(name) else { return Ok(None) };
        let own = self.own.get(name);
        let settled = table.settled || rows == Rows::Staged;
        if settled && !wanted.is_empty() && table.published.num_rows() > SCANNED_ROWS_MAX {
            let schema = table.schema.clone();
            let (of, wanted, version) = (name.clone(), wanted.clone(), table.version);
            let found = shared
                .ask(|reply| Event::Ask(Question::ReadTable { table: of, wanted, version, reply }))
                .await?;
            if let Some(found) = found {
                return over(own, found, &schema)
                    .and_then(|rows| with_new_columns(shared, name, &schema, rows))
                    .map(Some);
            }
        }
        let base = match rows {
            Rows::Published => &table.published,
            Rows::Staged => &table.staged,
        };
        let batches = base.batches().map_err(crate::error::arrow)?;
        let rows = over(own, batches, &table.schema)?;
        with_new_columns(shared, name, &table.schema, rows).map(Some)
    }
}

/// Returns rows of a table with the columns added since the transaction began.
fn with_new_columns(
    shared: &Shared,
    name: &str,
    known: &SchemaRef,
    rows: Vec<RecordBatch>,
) -> Result<Vec<RecordBatch>> {
    let catalog = shared.catalog();
    let now = catalog.find(name).and_then(|object| object.definition.schema());
    if now.is_some_and(|now| !begins_with(now, known)) {
        return Err(altered(name));
    }
    let width = known.fields().len();
    // The name may denote another table by now.
    let is_wider = |now: &&SchemaRef| now.fields().len() > width && first_columns(now, width) == *known;
    let Some(now) = now.filter(is_wider) else { return Ok(rows) };
    let new = now.fields().iter().skip(width).map(AsRef::as_ref);
    let added = shared.planner.default_values(new)?;
    rows.iter().map(|rows| extended(rows, now, &added)).collect()
}

fn over(own: Option<&Own>, rows: Vec<RecordBatch>, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    match own {
        Some(own) => own.over(rows, schema),
        None => Ok(rows),
    }
}
