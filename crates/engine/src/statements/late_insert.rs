//! `INSERT INTO view SELECT … FROM late_rows('view') …`: puts late rows into their windows.

use std::sync::Arc;

use arrow::array::{BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::tokenizer::Token;
use futures::TryStreamExt;
use millstream_delta::{Chunk, Cut, Delta, consolidate, fitted};
use millstream_flow::{Change, Flow};
use millstream_sql::{Error, Result, TokenReader};

use super::verify::{counts, difference};
use super::{select, within};
use crate::catalog::{Catalog, late_rows_of};
use crate::error;
use crate::event::{Event, PinnedInput, PinnedLate};
use crate::pg::OneShot;
use crate::point;
use crate::query_pool;
use crate::run::Correction;
use crate::session::{Response, Session, Tag};

/// Returns the view, stream or sink that an INSERT names, if its windows close.
pub(crate) fn target(reader: &TokenReader<'_>, catalog: &Catalog) -> Option<Arc<str>> {
    let mut reader = reader.clone();
    let name = (reader.keyword(&["INSERT", "INTO"])).then(|| reader.relation_name().ok()).flatten()?;
    let object = catalog.find(&name)?;
    catalog.late_columns(&object.name).map(|_| object.name.clone())
}

pub(crate) async fn run(
    session: &mut Session,
    view: Arc<str>,
    mut reader: TokenReader<'_>,
) -> Result<Response> {
    if session.transaction.is_some() {
        return Err(Error::invalid(format!("late rows can't be put into \"{view}\" within a transaction"))
            .hint("COMMIT first: the statement takes effect by itself."));
    }
    reader.expect_keyword(&["INSERT", "INTO"])?;
    reader.relation_name()?;
    let is_list = *reader.peek() == Token::LParen && !select::begins_at(&reader, 1);
    if is_list || !select::begins(&reader) {
        return Err(reader.expected("a query of late rows").hint(format!(
            "INSERT INTO {view} SELECT * FROM late_rows('{view}') puts them into their windows."
        )));
    }
    let rows = late_rows(session, &view, &reader).await?;
    let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
    if count == 0 {
        return Ok(Tag::new("INSERT 0 0").into());
    }
    let (name, wanted) = (view.clone(), rows.clone());
    let ask = |reply| Event::PinLate { view: name, rows: wanted, reply };
    let pinned = session.shared.ask(ask).await?;
    let times_put = pinned.times_put;
    let change = anew(session, &view, pinned).await?;
    let correction = Box::new(Correction { view, late: rows, rows: change, times_put });
    let count = session.shared.ask(|reply| Event::Correct { correction, reply }).await?;
    Ok(Tag::new(format!("INSERT 0 {count}")).into())
}

/// Returns the rows of the statement's query, which has the columns of the view's late rows.
async fn late_rows(
    session: &mut Session,
    view: &Arc<str>,
    reader: &TokenReader<'_>,
) -> Result<Vec<RecordBatch>> {
    let (text, offset) = within(reader);
    let catalog = session.catalog();
    let schema = catalog.late_columns(view).cloned();
    let schema = schema.ok_or_else(|| Error::bug("it was found by its late rows"))?;
    let (settings, now) = session.settings().await?;
    let planner = session.planner(now);
    let relations = OneShot::of(session, catalog, settings.clone());
    let query = planner.query(text, &relations).map_err(|error| error.shift(offset))?;
    let names = |schema: &SchemaRef| -> Vec<String> {
        schema.fields().iter().map(|field| field.name().clone()).collect()
    };
    if names(&query.schema) != names(&schema) {
        let (found, expected) = (names(&query.schema).join(", "), names(&schema).join(", "));
        return Err(Error::invalid(format!(
            "\"{view}\" takes its late rows, with their columns {expected}, but the query returns {found}"
        ))
        .hint(format!("INSERT INTO {view} SELECT * FROM late_rows('{view}') WHERE …")));
    }
    let asked = point::asked(&query.plan)?;
    if !asked.iter().any(|asked| late_rows_of(&asked.name) == Some(view)) {
        return Err(Error::invalid(format!(
            "only rows of late_rows('{view}') can be put into \"{view}\": its other rows come from its query"
        ))
        .hint(format!("INSERT INTO {view} SELECT * FROM late_rows('{view}') WHERE …")));
    }
    let contents = session.contents(asked, false).await?;
    let rows = select::collect(&session.shared, &planner, query.plan, contents, &settings).await?;
    let rows = rows.iter().filter(|rows| rows.num_rows() > 0).map(|rows| fitted(rows, &schema));
    rows.collect::<Result<_, _>>().map_err(|error| {
        Error::invalid(format!("the rows don't fit the columns of late_rows('{view}') ({schema}): {error}"))
    })
}

/// Computes the change of the view: runs its operators again, once without late rows and once with those put
/// in.
async fn anew(session: &Session, view: &Arc<str>, pinned: PinnedLate) -> Result<Delta> {
    let handle = &session.shared.handle;
    let read = |inputs: Vec<PinnedInput>| async move {
        let mut read = Vec::with_capacity(inputs.len());
        for input in inputs {
            read.push(match input {
                PinnedInput::Rows(rows) => Delta::from_iter(rows.batches().await?),
                PinnedInput::SourceHistory(history) => Delta::from_iter(history.pieces().try_concat().await?),
            });
        }
        Ok::<_, Error>(read)
    };
    let PinnedLate { flow, cut, inputs, rows, parted, shown, appends, .. } = pinned;
    let inputs = handle.spawn(read(inputs)).await.map_err(|error| Error::bug(error.to_string()))??;
    let rows = rows.batches().await?;
    let schema = flow.schema().map_err(error::flow)?.clone();
    let windows = Windows { view: view.clone(), schema, shown, appends };
    let compare = move || {
        let mut twice = Twice { flow, cut, inputs };
        let before = twice.answer(&[parted.put.clone(), parted.rest.clone()].concat())?;
        let after = twice.answer(&parted.rest)?;
        windows.correction(before, after, &rows)
    };
    query_pool::blocking(handle, compare).await?
}

/// A view's operators, to run twice over the same rows.
struct Twice {
    flow: Flow,
    cut: Cut,
    inputs: Vec<Delta>,
}

impl Twice {
    /// Computes the answer over all rows except some late ones.
    fn answer(&mut self, late: &[RecordBatch]) -> Result<Delta> {
        self.flow.reset().map_err(error::flow)?;
        let inputs: Vec<&Delta> = self.inputs.iter().collect();
        let change = self.flow.step_without(&self.cut, &inputs, late).map_err(error::flow)?;
        let Change { rows, errors, .. } = change;
        if !errors.is_empty() {
            return Err(Error::invalid(
                "its query would fail for some of the rows with the late rows put in",
            )
            .hint("Leave out the late rows for which an expression fails."));
        }
        Ok(rows)
    }
}

/// The changed windows of a view, and the rules for changing them.
struct Windows {
    view: Arc<str>,
    /// The columns of the view.
    schema: SchemaRef,
    /// The column that identifies windows, and the value below which they are closed, as a count of its unit.
    shown: (usize, Option<i64>),
    appends: bool,
}

impl Windows {
    /// Returns the change of the maintained rows from one answer to the other.
    fn correction(&self, before: Delta, after: Delta, maintained: &[RecordBatch]) -> Result<Delta> {
        let in_sum = |delta| consolidate(delta, &self.schema).map_err(|error| self.cant(&error.to_string()));
        let before = in_sum(before)?;
        let mut change = after;
        for chunk in &before.chunks {
            let weights = Some(chunk.weights_or_ones().unary(|weight| -weight));
            change.push(Chunk { rows: chunk.rows.clone(), weights });
        }
        let change = in_sum(change)?;
        let touched = self.touched(&change)?;
        let before = before.chunks.iter().map(|chunk| chunk.expand().map_err(error::arrow));
        self.check_maintained(&touched, &before.collect::<Result<Vec<_>>>()?, maintained)?;
        let (inserts, deletes) = change.split_by_sign().map_err(error::arrow)?;
        if self.appends && !deletes.is_empty() {
            return Err(self
                .cant("they change results that are emitted once, when their windows close, and are never retracted")
                .hint("A view without EMIT ON WINDOW CLOSE takes them."));
        }
        let mut whole = Delta::default();
        for (side, of) in [(deletes, Chunk::delete as fn(RecordBatch) -> Chunk), (inserts, Chunk::insert)] {
            for chunk in side.chunks {
                whole.push(of(chunk.expand().map_err(error::arrow)?));
            }
        }
        Ok(whole)
    }

    fn cant(&self, why: &str) -> Error {
        Error::invalid(format!("late rows can't be put into \"{}\": {why}", self.view))
    }

    /// Returns the times of the windows that change, sorted. Fails if one of them is open.
    fn touched(&self, change: &Delta) -> Result<Vec<i64>> {
        let mut touched = Vec::new();
        for chunk in &change.chunks {
            let times = self.times(&chunk.rows)?;
            let open = |time: Option<i64>| time.zip(self.shown.1).is_none_or(|(time, below)| time >= below);
            if times.iter().any(open) {
                return Err(self
                    .cant("they would change windows that are still open")
                    .hint("Put them in when the windows that they count for have closed."));
            }
            touched.extend(times.iter().flatten());
        }
        touched.sort_unstable();
        touched.dedup();
        Ok(touched)
    }

    /// Fails if the maintained answer of a changed window differs from the one computed from its inputs.
    fn check_maintained(
        &self,
        touched: &[i64],
        before: &[RecordBatch],
        maintained: &[RecordBatch],
    ) -> Result<()> {
        let of_touched = |rows: &RecordBatch| {
            let is_touched =
                |time: Option<i64>| time.is_some_and(|time| touched.binary_search(&time).is_ok());
            let mask: BooleanArray = self.times(rows)?.iter().map(|time| Some(is_touched(time))).collect();
            filter_record_batch(rows, &mask).map_err(error::arrow)
        };
        let of_touched = |rows: &[RecordBatch]| rows.iter().map(of_touched).collect::<Result<Vec<_>>>();
        let differs = difference(&self.schema, of_touched(maintained)?, of_touched(before)?);
        if differs.map_err(error::arrow)?.num_rows() == 0 {
            return Ok(());
        }
        Err(self.cant("the results of their windows don't match the current content of its inputs").hint(
            "Something that it reads was changed from outside after it was read: VERIFY shows what differs.",
        ))
    }

    /// Returns the times that identify windows, as counts of their unit.
    fn times(&self, rows: &RecordBatch) -> Result<Int64Array> {
        counts(rows.column(self.shown.0)).map_err(error::arrow)
    }
}
