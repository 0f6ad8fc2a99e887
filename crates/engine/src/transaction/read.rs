//! What statements read: the present, or what the open transaction sees.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;
use millstream_delta::Timestamp;
use millstream_sql::{Error, Result};

use super::{Transaction, View};
use crate::event::Event;
use crate::session::Session;
use crate::settings::Settings;

/// The rows of relations, by name.
pub(crate) type Contents = HashMap<String, Vec<RecordBatch>>;

/// Which rows of tables are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Those as of an epoch, as SELECT reads them.
    Published,
    /// With what statements have changed since, as INSERT, UPDATE and DELETE read them.
    Staged,
}

impl Session {
    /// The settings, and the time that statements have: a transaction's is that of its beginning.
    pub(crate) async fn settings(&mut self) -> Result<(Settings, Timestamp)> {
        let shared = self.shared.clone();
        let began = match &self.transaction {
            Some(_) => Some(self.view().await?.begun.now),
            None => None,
        };
        let (settings, now) = shared.ask(|reply| Event::Settings { reply }).await?;
        Ok((settings, began.unwrap_or(now)))
    }

    /// The rows of relations as a SELECT sees them; under `stamped` with the columns of the batch, where rows have one.
    pub(crate) async fn contents(&mut self, names: &[Arc<str>], stamped: bool) -> Result<Contents> {
        if names.is_empty() {
            return Ok(Contents::new());
        }
        if self.transaction.is_some() {
            return self.contents_within(names, stamped, Rows::Published).await;
        }
        let relations = names.to_vec();
        let snapshot = self.shared.ask(|reply| Event::Read { relations, stamped, reply }).await?;
        Ok(names.iter().map(|name| name.to_string()).zip(snapshot.relations).collect())
    }

    /// The same as the open transaction sees them.
    pub(super) async fn contents_within(
        &mut self,
        names: &[Arc<str>],
        stamped: bool,
        rows: Rows,
    ) -> Result<Contents> {
        let shared = self.shared.clone();
        let view = self.view().await?;
        let is_kept =
            |name: &&Arc<str>| view.begun.tables.contains_key(*name) || view.read.contains_key(*name);
        let relations: Vec<Arc<str>> = names.iter().filter(|name| !is_kept(name)).cloned().collect();
        let mut contents = Contents::new();
        if !relations.is_empty() {
            let (transaction, asked) = (view.begun.guard.number, relations.clone());
            let event = |reply| Event::ReadAt { transaction, relations: asked, stamped, reply };
            let snapshot = shared.ask(event).await?;
            for (name, rows) in relations.iter().zip(snapshot.relations) {
                // Rows with the columns of their batch are others than those without.
                if !stamped {
                    view.read.insert(name.clone(), rows.clone());
                }
                contents.insert(name.to_string(), rows);
            }
        }
        for name in names.iter().filter(|name| !relations.contains(name)) {
            contents.insert(name.to_string(), view.kept(name, rows)?);
        }
        Ok(contents)
    }

    /// What the open transaction sees, from now on if it hasn't looked before.
    pub(super) async fn view(&mut self) -> Result<&mut View> {
        let shared = self.shared.clone();
        let transaction = self.open_transaction()?;
        if transaction.view.is_none() {
            let begun = shared.ask(|reply| Event::Begin { reply }).await?;
            transaction.view =
                Some(View { begun, read: HashMap::new(), own: Default::default(), own_bytes: 0 });
        }
        transaction.view.as_mut().ok_or_else(|| Error::bug("it was made above"))
    }

    pub(super) fn open_transaction(&mut self) -> Result<&mut Transaction> {
        self.transaction.as_mut().ok_or_else(|| Error::bug("no transaction is open"))
    }

    /// Rows that the open transaction fails with when they fail.
    pub(crate) fn watched(&self, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let Some(transaction) = &self.transaction else { return rows };
        let failed: Arc<AtomicBool> = transaction.rows_failed();
        let schema = rows.schema();
        let rows = rows.inspect_err(move |_| failed.store(true, Ordering::Release));
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

impl View {
    /// What is read again, and tables with the transaction's own changes.
    fn kept(&self, name: &Arc<str>, rows: Rows) -> Result<Vec<RecordBatch>> {
        if let Some(read) = self.read.get(name) {
            return Ok(read.clone());
        }
        let Some(table) = self.begun.tables.get(name) else { return Ok(Vec::new()) };
        let base = match rows {
            Rows::Published => &table.published,
            Rows::Staged => &table.staged,
        };
        match self.own.get(name) {
            Some(own) => own.over(base),
            None => base.batches().map_err(crate::error::arrow),
        }
    }
}
