//! The history of a source: all rows so far, read again from its start.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use millstream_connect::{Arrival, Connector, Limit, More, Source, SourceSpec};
use millstream_delta::{Span, under_schema};
use millstream_sql::{Error, Result};

use crate::error;
use crate::run::Ahead;

/// Spans of a source, and the connector to read them again.
#[derive(Clone)]
pub(crate) struct SourceHistory {
    /// All its columns.
    pub(crate) schema: SchemaRef,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) spec: SourceSpec,
    pub(crate) spans: Vec<Span>,
    /// Rows that statements have inserted into it.
    pub(crate) put: Vec<RecordBatch>,
    /// The rows that were set aside as bad.
    pub(crate) ahead: Ahead,
    /// The maximum size of one read.
    pub(crate) limit: Limit,
    /// The columns that are needed; `None`: all.
    pub(crate) wanted: Option<Vec<bool>>,
}

impl fmt::Debug for SourceHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Past").field("source", &self.spec.name).finish_non_exhaustive()
    }
}

/// The state of reading: the open source and the remaining spans.
struct Reading {
    history: SourceHistory,
    source: Option<Box<dyn Source>>,
    spans: VecDeque<Span>,
    /// The number of rows read of the current span.
    rows: u64,
}

impl Reading {
    /// Removes the rows that were set aside from the next rows of a span. Spans begin at the start of their
    /// split.
    fn without_ahead(&mut self, span: &Span, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        if self.history.ahead.is_empty() {
            return Ok(rows);
        }
        let mut kept = Vec::with_capacity(rows.len());
        for rows in rows {
            let first = self.rows;
            self.rows += rows.num_rows() as u64;
            kept.push(self.history.ahead.without(&span.split, first, rows)?);
        }
        Ok(kept)
    }
}

impl SourceHistory {
    /// Returns the rows in bounded pieces.
    pub(crate) fn pieces(mut self) -> impl Stream<Item = Result<Vec<RecordBatch>>> + Send {
        let put = std::mem::take(&mut self.put);
        let put = stream::iter((!put.is_empty()).then_some(Ok(put)));
        let spans = self.spans.iter().cloned().collect();
        put.chain(stream::try_unfold(
            Reading { history: self, source: None, spans, rows: 0 },
            |mut reading| async move {
                let Some(span) = reading.spans.pop_front() else { return Ok(None) };
                if reading.source.is_none() {
                    reading.source = Some(reading.history.open().await?);
                }
                let source = reading.source.as_mut().expect("it was opened above");
                let arrival = source.replay(&span, reading.history.limit).await.map_err(error::connect)?;
                let rows = reading.without_ahead(&span, arrival.rows.clone())?;
                match rest_of(&span, &arrival) {
                    Some(rest) => reading.spans.push_front(rest),
                    None => reading.rows = 0,
                }
                Ok(Some((rows, reading)))
            },
        ))
    }

    async fn open(&self) -> Result<Box<dyn Source>> {
        let (connector, spec) = (self.connector.clone(), self.spec.clone());
        let opened = tokio::task::spawn_blocking(move || connector.source(&spec)).await;
        let mut source = opened.map_err(|error| Error::bug(error.to_string()))?.map_err(error::connect)?;
        if let Some(wanted) = &self.wanted {
            source.want(wanted).await.map_err(error::connect)?;
        }
        Ok(source)
    }

    /// Returns a table over the rows with these columns.
    pub(crate) fn table(mut self, columns: &SchemaRef) -> Result<Arc<dyn TableProvider>> {
        let places = columns.fields().iter().map(|field| self.schema.index_of(field.name()));
        let places = places.collect::<Result<Vec<_>, _>>().map_err(error::arrow)?;
        self.wanted = Some((0..self.schema.fields().len()).map(|column| places.contains(&column)).collect());
        let part = Part { history: self, columns: columns.clone(), places };
        Ok(Arc::new(StreamingTable::try_new(columns.clone(), vec![Arc::new(part)])?))
    }
}

/// Returns the rest of a span that is still to be read.
pub(crate) fn rest_of(span: &Span, arrival: &Arrival) -> Option<Span> {
    let through = arrival.spans.last().map_or(span.to, |read| read.to);
    (arrival.more == More::Now && through < span.to).then(|| Span { from: through, ..span.clone() })
}

/// The only partition of such a table.
#[derive(Debug)]
struct Part {
    history: SourceHistory,
    columns: SchemaRef,
    places: Vec<usize>,
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.columns
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (columns, places) = (self.columns.clone(), self.places.clone());
        let pieces = self.history.clone().pieces().map_err(DataFusionError::from);
        let batches = pieces.map_ok(|piece| stream::iter(piece).map(Ok)).try_flatten();
        let batches = batches.map(move |batch: Result<RecordBatch, DataFusionError>| {
            Ok(under_schema(&batch?.project(&places)?, &columns)?)
        });
        Box::pin(RecordBatchStreamAdapter::new(self.columns.clone(), batches))
    }
}
