//! `SELECT`, `WITH`, `VALUES`: queries over one consistent snapshot.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::{RecordBatchReceiverStreamBuilder, RecordBatchStreamAdapter};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream, execute_stream};
use datafusion::sql::sqlparser::tokenizer::Token;
use futures::{FutureExt, StreamExt, TryStreamExt};
use millstream_flow::{bound_recursion, guarded};
use millstream_sql::dialect::trailing_emit;
use millstream_sql::{Emit, Error, Operation, Planner, Result, TokenReader, sqlstate};

use super::{emit_changes, for_each_batch, reads_batch, within};
use crate::advisory_locks;
use crate::engine::Shared;
use crate::error;
use crate::panics::panicked;
use crate::pg;
use crate::pg::OneShot;
use crate::point;
use crate::query_pool;
use crate::sequences;
use crate::session::{Response, Session};
use crate::settings::Settings;
use crate::snapshot;
use crate::statement::{Rules, Run, Statement};
use crate::statement_memory::{self, Buffers, StatementMemory};
use crate::transaction::Contents;

pub(super) static SELECT: Statement = Statement {
    words: &[&["SELECT"], &["WITH"], &["VALUES"], &["TABLE"]],
    synopsis: concat!(
        "[WITH [RECURSIVE] name AS (query) [, …]]\n",
        "SELECT … [FROM …] [WHERE …] [GROUP BY …] [HAVING …] [ORDER BY …] [LIMIT n] [OFFSET n];\n",
        "VALUES (…), …;\n",
        "TABLE name;\n",
        "SELECT … EMIT CHANGES [LIMIT n]\n",
        "SELECT … EMIT ON WINDOW CLOSE [LIMIT n]",
    ),
    purpose: "run a query once",
    pages: &["select", "emit-changes"],
    begins: Some(|reader| begins(reader) && Operation::of(reader).is_none()),
    run: Run::Alone(|session, reader| Box::pin(async move { run(session, reader).await })),
    rules: Rules { can_be_prepared: true, ..Rules::ROWS },
};

/// The maximum number of batches that wait for a slow reader.
const BATCHES_MAX: usize = 2;

/// Returns true if a query begins here.
pub(crate) fn begins(reader: &TokenReader<'_>) -> bool {
    begins_at(reader, 0)
}

/// Returns true if a query begins at the token `n` after the next one.
pub(super) fn begins_at(reader: &TokenReader<'_>, n: usize) -> bool {
    match reader.peek_at(n) {
        Token::LParen => true,
        Token::Word(word) if word.quote_style.is_none() => {
            ["SELECT", "WITH", "VALUES", "TABLE"].iter().any(|first| word.value.eq_ignore_ascii_case(first))
        }
        _ => false,
    }
}

pub(crate) async fn run(session: &mut Session, reader: TokenReader<'_>) -> Result<Response> {
    match trailing_emit(&reader) {
        Some((emit @ (Emit::Changes | Emit::OnWindowClose), clause)) => {
            return emit_changes::run(session, reader, emit, clause).await;
        }
        Some((Emit::EachBatch, clause)) => return for_each_batch::run(session, reader, clause).await,
        None => {}
    }
    let (text, offset) = within(&reader);
    let catalog = session.catalog();
    let (settings, now) = session.settings().await?;
    let planner = session.planner(now);
    let relations = OneShot::of(session, catalog, settings.clone());
    let mut query = planner.query(text, &relations).map_err(|error| error.shift(offset))?;
    query.plan = sequences::bind(query.plan, &session.catalog(), &session.variables.sequences)?;
    let (locks, all) = (&session.variables.locks, &session.shared.statements.locks);
    query.plan = advisory_locks::take(query.plan, locks, all, session.transaction.is_some()).await?;
    let modes = session.transaction.as_ref().map_or(session.variables.modes, |open| open.modes);
    if modes.read_only && sequences::moves(&query.plan)? {
        return Err(Error::invalid("nextval and setval can't be run in a transaction that is READ ONLY")
            .code(sqlstate::READ_ONLY_SQL_TRANSACTION));
    }
    let (of_catalog, asked): (Vec<_>, Vec<_>) =
        point::asked(&query.plan)?.into_iter().partition(|asked| pg::is_name(&asked.name));
    let stamped = reads_batch(&query.plan)?;
    let mut contents = session.contents(asked, stamped).await?;
    let is_of_catalog = !of_catalog.is_empty();
    for asked in of_catalog {
        contents.insert(asked.name.to_string(), vec![pg::batch(relations.facts(), &asked.name)?]);
    }
    let rows = start(&session.shared, &planner, query.plan.clone(), contents, &settings).await?;
    let shown = query.output_schema(&rows.schema());
    let shown = if is_of_catalog { pg::marked(&shown) } else { shown };
    Ok(Response::Rows(described(rows, shown)))
}

/// Returns the same rows with another schema's metadata.
pub(crate) fn described(rows: SendableRecordBatchStream, schema: SchemaRef) -> SendableRecordBatchStream {
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// Runs a plan over the rows of its relations, and returns all rows.
pub(crate) async fn collect(
    shared: &Shared,
    planner: &Planner,
    plan: LogicalPlan,
    contents: Contents,
    settings: &Settings,
) -> Result<Vec<RecordBatch>> {
    let memory = StatementMemory::begin(&shared.statements.memory, settings);
    let kept = statement_memory::reservation(&memory, "rows");
    let mut buffers = Buffers::default();
    let mut rows = start_within(shared, planner, plan, contents, settings, memory).await?;
    let mut all = Vec::new();
    while let Some(batch) = rows.try_next().await? {
        kept.try_grow(buffers.add(&batch))?;
        all.push(batch);
    }
    Ok(all)
}

/// Runs a plan over the rows of its relations, and returns rows as the reader takes them.
pub(crate) async fn start(
    shared: &Shared,
    planner: &Planner,
    plan: LogicalPlan,
    contents: Contents,
    settings: &Settings,
) -> Result<SendableRecordBatchStream> {
    let memory = StatementMemory::begin(&shared.statements.memory, settings);
    start_within(shared, planner, plan, contents, settings, memory).await
}

/// Creates the physical plan of a one-time query. A row fails in this plan if and only if it fails in a
/// maintained query.
pub(super) async fn physical(
    planner: &Planner,
    plan: LogicalPlan,
    settings: &Settings,
) -> Result<Arc<dyn ExecutionPlan>> {
    Ok(bound_recursion(planner.physical(&guarded(plan)?).await?, &settings.limits)?)
}

async fn start_within(
    shared: &Shared,
    planner: &Planner,
    plan: LogicalPlan,
    contents: Contents,
    settings: &Settings,
    memory: Arc<dyn MemoryPool>,
) -> Result<SendableRecordBatchStream> {
    let saves_sequences = sequences::moves(&plan)?;
    let events = shared.events.clone();
    let plan = over(plan, &contents, settings)?;
    let physical = physical(planner, plan, settings).await?;
    let task = statement_memory::task(planner.state(), memory);
    // The plan's own tasks run on the statement's worker, whatever runtime the reader has.
    let handle = query_pool::handle(&shared.handle);
    let guard = handle.enter();
    let schema = physical.schema();
    let mut builder = RecordBatchReceiverStreamBuilder::new(schema, BATCHES_MAX);
    let sender = builder.tx();
    let read = async move {
        let mut stream: SendableRecordBatchStream = execute_stream(physical, task)?;
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|failed| error::flow(failed.into()).into());
            if saves_sequences {
                sequences::save(&events).await?;
            }
            if sender.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    // A panic in a kernel ends this query, not its reader.
    let read = AssertUnwindSafe(read).catch_unwind();
    let ended = |said: Box<dyn Any + Send>| Err(DataFusionError::from(panicked("the query", said.as_ref())));
    builder.spawn_on(read.map(move |done| done.unwrap_or_else(ended)), &handle);
    drop(guard);
    Ok(builder.build())
}

/// Returns a plan over the rows of the relations that it scans.
pub(crate) fn over(plan: LogicalPlan, contents: &Contents, settings: &Settings) -> Result<LogicalPlan> {
    millstream_sql::bind(plan, &mut |name, schema| {
        snapshot::table(contents.get(name).map_or(&[], Vec::as_slice), schema, settings.parallelism)
    })
}
