//! Rows that statements insert into a source, beside those that it reads: repaired bad rows, for example.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::SchemaRef;
use millstream_delta::Delta;
use millstream_sql::{Result, is_hidden};

use super::Loop;
use super::deltas::{Deltas, in_sum};
use super::table::{Table, Waiting};
use crate::catalog::Catalog;
use crate::error;
use crate::event::Reply;
use crate::settings::ClockKind;

/// The rows that statements inserted into one source. The source can't read them again, so the engine keeps them.
#[derive(Debug, Default)]
pub(crate) struct Put {
    all: Vec<RecordBatch>,
    pending: Vec<RecordBatch>,
    replies: Waiting,
}

impl Put {
    /// Returns the rows that epochs have taken.
    pub(crate) fn taken(&self) -> &[RecordBatch] {
        &self.all
    }

    /// Adds rows of the journal.
    pub(crate) fn replay(&mut self, rows: Vec<RecordBatch>) {
        self.all.extend(rows);
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty() || !self.replies.is_empty()
    }

    fn take(&mut self) -> (Delta, Waiting) {
        let rows = std::mem::take(&mut self.pending);
        self.all.extend(rows.iter().cloned());
        (Delta::from_iter(rows), std::mem::take(&mut self.replies))
    }
}

impl Loop {
    /// Inserts rows of a source's visible columns into it; the next epoch takes them.
    pub(super) fn put_into_source(&mut self, name: &str, rows: &RecordBatch, reply: Reply<u64>) {
        let count = rows.num_rows() as u64;
        let fits = self.catalog.with_hidden(name, rows);
        let fits = fits.and_then(|rows| {
            self.check_event_time(name, std::slice::from_ref(&rows))?;
            Ok(rows)
        });
        let put = fits.and_then(|rows| {
            let source = self.sources.get_mut(name);
            let source = source.ok_or_else(|| crate::Error::bug("it is there as a source"))?;
            if rows.num_rows() > 0 {
                source.rows += count;
                source.put.pending.push(rows);
            }
            Ok(&mut source.put)
        });
        match put {
            Ok(put) if self.settings.clock == ClockKind::System => put.replies.push((reply, count)),
            Ok(_) => reply.send(Ok(count)),
            Err(error) => reply.send(Err(error)),
        }
    }

    /// Returns true if changes by statements wait for an epoch.
    pub(super) fn statements_wait(&self) -> bool {
        self.tables.values().any(Table::is_changed)
            || self.sources.values().any(|source| source.put.is_waiting())
            || self.queries.iter().any(|query| query.correction.is_some())
    }

    /// Adds the rows that were inserted into sources to an epoch.
    pub(super) fn take_put(
        &mut self,
        deltas: &mut Deltas,
        changes: &mut Vec<(Arc<str>, Delta)>,
        replies: &mut Waiting,
    ) {
        for (name, source) in self.sources.iter_mut().filter(|(_, source)| source.put.is_waiting()) {
            let (delta, waiting) = source.put.take();
            if !source.replayable {
                // Later queries over this source start with later rows, so nobody reads these again.
                source.put.all.clear();
            }
            replies.extend(waiting);
            if !delta.is_empty() {
                changes.push((name.clone(), delta.clone()));
                let all = deltas.entry(name.clone()).or_default();
                match self.tables.get_mut(name).map(|table| table.follow_rows(&delta)) {
                    None => all.append(delta),
                    Some(Ok(delta)) => {
                        all.append(delta);
                        *all = in_sum(std::mem::take(all));
                    }
                    Some(Err(error)) => source.fail(error),
                }
            }
        }
    }
}

impl Catalog {
    /// Adds the hidden columns of the source, as nulls: they say where a row was read, and these rows weren't read.
    fn with_hidden(&self, name: &str, rows: &RecordBatch) -> Result<RecordBatch> {
        let schema: &SchemaRef =
            self.get(name)?.definition.schema().ok_or_else(|| crate::Error::bug("a source has columns"))?;
        let mut visible = rows.columns().iter().cloned();
        let columns: Vec<ArrayRef> = schema
            .fields()
            .iter()
            .filter_map(|field| match is_hidden(field) {
                true => Some(new_null_array(field.data_type(), rows.num_rows())),
                false => visible.next(),
            })
            .collect();
        RecordBatch::try_new(schema.clone(), columns).map_err(error::arrow)
    }
}
