//! `VERIFY view`: computes the view as a batch over its inputs, and returns the rows that differ.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int64Type, Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::collect;
use millstream_delta::{Chunk, Delta, consolidate, under_schema};
use millstream_sql::{Error, Result, TokenReader};
use tokio::task::JoinSet;

use super::select;
use super::show::rows_with_notice;
use crate::error;
use crate::event::{Event, Pinned, PinnedInput, Question, Windows};
use crate::query_pool;
use crate::session::{Response, Session};
use crate::settings::Settings;
use crate::snapshot;
use crate::statement::{Rules, Run, Statement};
use crate::statement_memory::{self, StatementMemory};

pub(super) static VERIFY: Statement = Statement {
    words: &[&["VERIFY"]],
    synopsis: "VERIFY [MATERIALIZED VIEW] name;",
    purpose: "compare a materialized view with the batch result",
    pages: &["verify"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::ROWS,
};

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    reader.keyword(&["MATERIALIZED", "VIEW"]);
    let name = reader.relation_name()?;
    let at = reader.last_position();
    reader.expect_end()?;
    session.catalog().get(&name).map_err(|error| error.at(at.clone()))?;
    let (settings, _) = session.shared.ask(|reply| Event::Ask(Question::Settings { reply })).await?;
    let view: Arc<str> = name.as_str().into();
    let pinned =
        session.shared.ask(|reply| Event::Pin { view, reply }).await.map_err(|error| error.at(at))?;
    let checked = extent(&name, &pinned);
    let Pinned { plan, schema, rows, windows, inputs, .. } = pinned;
    let rows = rows.batches().await?;
    let batch = answer(session, &settings, plan, inputs).await.map_err(|error| {
        let message = format!("\"{name}\" has an answer, but its query fails as a batch: {}", error.message);
        Error { message, ..error }
    })?;
    let compare = move || difference(&schema, rows, closed(batch, windows)?);
    let compared = query_pool::blocking(&session.shared.handle, compare).await?;
    let difference = compared.map_err(|error| {
        Error::invalid(format!("\"{name}\" can't be verified: its rows can't be compared: {error}"))
    })?;
    rows_with_notice(difference, checked)
}

/// Returns the extent of the check, in words.
fn extent(name: &str, pinned: &Pinned) -> String {
    let of = |past: bool| -> Vec<String> {
        let inputs =
            pinned.inputs.iter().filter(|(_, input)| matches!(input, PinnedInput::SourceHistory(_)) == past);
        inputs.map(|(name, _)| format!("\"{name}\"")).collect()
    };
    let (kept, read_again) = (of(false), of(true));
    let mut parts = Vec::new();
    if !kept.is_empty() {
        parts.push(format!("all that {} held", kept.join(", ")));
    }
    if !read_again.is_empty() {
        parts.push(format!("all rows of {}, read again from the start", read_again.join(", ")));
    }
    let over = if parts.is_empty() { String::new() } else { format!(" over {}", parts.join(" and ")) };
    let differs = match pinned.forgets {
        true => "; what its state_ttl has forgotten may differ",
        false => "",
    };
    let windows = pinned.windows.map_or_else(String::new, windows_text);
    format!(
        "complete: \"{name}\" was compared with its query run as a batch{over}, as of epoch {}{differs}{windows}",
        pinned.epoch
    )
}

/// Returns the limits of the check for windows that close, in words.
fn windows_text(windows: Windows) -> String {
    let Windows { late, on_close, shown } = windows;
    let mut text = match (on_close, shown) {
        (false, _) => String::new(),
        (true, Some(_)) => "; of the batch only the windows that have closed".into(),
        (true, None) => {
            "; it shows no column of its windows, so that those still open are in the batch alone".into()
        }
    };
    if late > 0 {
        let rows = if late == 1 { "1 row".into() } else { format!("{late} rows") };
        text.push_str(&format!(
            "; {rows} inserted or deleted after their windows had closed count in the batch alone: see late_rows"
        ));
    }
    text
}

/// Returns the rows of a batch answer in closed windows, if only these are maintained.
fn closed(
    batch: Vec<RecordBatch>,
    windows: Option<Windows>,
) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
    let Some(Windows { on_close: true, shown: Some((column, below)), .. }) = windows else {
        return Ok(batch);
    };
    let closed = |rows: &RecordBatch| {
        let is_closed = |time: Option<i64>| Some(time.zip(below).is_some_and(|(time, below)| time < below));
        filter_record_batch(rows, &counts(rows.column(column))?.iter().map(is_closed).collect())
    };
    batch.iter().map(closed).collect()
}

/// Returns times as counts of their unit.
pub(super) fn counts(times: &ArrayRef) -> Result<Int64Array, arrow::error::ArrowError> {
    let times = match times.data_type() {
        DataType::Date32 => cast(times, &DataType::Int32)?,
        _ => times.clone(),
    };
    Ok(cast(&times, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Returns the batch answer. Dropping the future cancels the computation.
async fn answer(
    session: &Session,
    settings: &Settings,
    plan: LogicalPlan,
    inputs: Vec<(Arc<str>, PinnedInput)>,
) -> Result<Vec<RecordBatch>> {
    let planner = &session.shared.planner;
    let (mut kept, mut past) = (HashMap::new(), HashMap::new());
    for (name, input) in inputs {
        match input {
            PinnedInput::Rows(rows) => _ = kept.insert(name, rows.batches().await?),
            PinnedInput::SourceHistory(again) => _ = past.insert(name, again),
        }
    }
    let plan = millstream_sql::bind(plan, &mut |name, schema| match (kept.get(name), past.get(name)) {
        (Some(rows), _) => snapshot::table(rows, schema, settings.parallelism),
        (None, Some(past)) => past.clone().table(schema),
        (None, None) => Err(Error::bug(format!("the view doesn't read \"{name}\""))),
    })?;
    let physical = select::physical(planner, plan, settings).await?;
    let memory = StatementMemory::begin(&session.shared.statements.memory, settings);
    let task = statement_memory::task(planner.state(), memory);
    let mut running = JoinSet::new();
    running.spawn_on(collect(physical, task), &query_pool::handle(&session.shared.handle));
    match running.join_next().await {
        Some(Ok(answer)) => answer.map_err(|error| error::flow(error.into())),
        Some(Err(error)) => Err(Error::bug(error.to_string())),
        None => Err(Error::bug("the batch query did not run")),
    }
}

/// Returns the rows that one side has more copies of, with the difference in copies.
pub(super) fn difference(
    schema: &SchemaRef,
    maintained: Vec<RecordBatch>,
    batch: Vec<RecordBatch>,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let nullable: Vec<Field> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let schema = Arc::new(Schema::new(nullable));
    let mut delta = Delta::default();
    for rows in maintained {
        delta.push(Chunk::insert(one_zero(&under_schema(&rows, &schema)?)?));
    }
    for rows in batch {
        delta.push(Chunk::delete(one_zero(&under_schema(&rows, &schema)?)?));
    }
    let delta = consolidate(delta, &schema)?;
    let weights: Vec<i64> =
        delta.chunks.iter().flat_map(|chunk| chunk.weights_or_ones().values().to_vec()).collect();
    let rows = concat_batches(&schema, delta.chunks.iter().map(|chunk| &chunk.rows))?;
    let side = |weight: &i64| if *weight > 0 { "only maintained" } else { "only in batch" };
    let mut fields =
        vec![Field::new("side", DataType::Utf8View, false), Field::new("count", DataType::Int64, false)];
    fields.extend(schema.fields().iter().map(|field| field.as_ref().clone()));
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(weights.iter().map(side))),
        Arc::new(Int64Array::from_iter_values(weights.iter().map(|weight| weight.abs()))),
    ];
    columns.extend(rows.columns().iter().cloned());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Normalizes zeros and NaNs, which are equal as values.
fn one_zero(rows: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let column = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Float64 => {
                Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(|x| match x {
                    x if x.is_nan() => f64::NAN,
                    x => x + 0.0,
                }))
            }
            DataType::Float32 => {
                Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(|x| match x {
                    x if x.is_nan() => f32::NAN,
                    x => x + 0.0,
                }))
            }
            _ => column.clone(),
        }
    };
    if rows.num_columns() == 0 {
        return Ok(rows.clone());
    }
    RecordBatch::try_new(rows.schema(), rows.columns().iter().map(column).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_shows_what_it_has_more_of() {
        let rows = |values: Vec<f64>| {
            let column: ArrayRef = Arc::new(arrow::array::Float64Array::from(values));
            RecordBatch::try_from_iter([("x", column)]).unwrap()
        };
        let maintained = rows(vec![1.0, 1.0, 2.0, -0.0, f64::NAN]);
        let batch = rows(vec![1.0, 3.0, 0.0, -f64::NAN]);
        let found = difference(&maintained.schema(), vec![maintained], vec![batch]).unwrap();
        let text = arrow::util::pretty::pretty_format_batches(&[found]).unwrap().to_string();
        let expected = [
            "+-----------------+-------+-----+",
            "| side            | count | x   |",
            "+-----------------+-------+-----+",
            "| only maintained | 1     | 1.0 |",
            "| only maintained | 1     | 2.0 |",
            "| only in batch   | 1     | 3.0 |",
            "+-----------------+-------+-----+",
        ];
        assert_eq!(text, expected.join("\n"));
    }
}
