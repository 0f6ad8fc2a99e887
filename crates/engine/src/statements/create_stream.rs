//! `CREATE STREAM [IF NOT EXISTS] name [(columns)] [WITH (retention = '…', on_error = …, state_ttl = '…', …)]
//! AS SELECT … [EMIT CHANGES | EMIT ON WINDOW CLOSE | FOR EACH BATCH]`

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_connect::{OptionDoc, Options};
use millstream_sql::{BatchQuery, Emit, Error, Result, TokenReader, dialect};

use super::create_materialized_view::{
    ALLOWED_LATENESS, ON_ERROR, PARALLELISM, STATE_TTL, check_parallelism,
};
use super::create_view::{Named, NamedBatches, maintained_query, named_batches, planned_before};
use super::{existed, new_name};
use crate::catalog::{Catalog, Definition, Object, Runs};
use crate::error;
use crate::plan::Working;
use crate::session::{Session, Tag};
use crate::settings::{Keeping, OnError, StateTtl, interval};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_STREAM: Statement = Statement {
    words: &[&["CREATE", "STREAM"]],
    synopsis: concat!(
        "CREATE [OR REPLACE] STREAM [IF NOT EXISTS] name [(column, …)]\n",
        "  [WITH (option = value, …)]\n",
        "  AS query [EMIT CHANGES | EMIT ON WINDOW CLOSE | FOR EACH BATCH];",
    ),
    purpose: "maintain a query and keep its newest rows, or run it once per batch",
    pages: &["create-stream"],
    begins: None,
    run: Run::Plan(|session, working, reader| Box::pin(async move { plan(session, working, reader) })),
    rules: Rules::CATALOG,
};

/// The default retention of an append-only stream.
const RETENTION: Duration = Duration::from_secs(600);

/// The options of a stream.
const OPTIONS: &[OptionDoc] = &[
    ALLOWED_LATENESS,
    ON_ERROR,
    PARALLELISM,
    OptionDoc {
        name: "retention",
        default: Some("10 minutes"),
        doc: "for how long it keeps rows, by batch time, if it is append-only",
    },
    STATE_TTL,
];

/// The values of a stream's options.
pub(super) struct StreamOptions {
    pub(super) on_error: Option<OnError>,
    pub(super) retention: Duration,
    pub(super) keeping: Keeping,
}

pub(crate) fn plan(session: &Session, working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let (name, exists) = new_name(working, &mut reader)?;
    if exists {
        return Ok(existed("STREAM", &name));
    }
    refuse_types(&reader)?;
    let planned = working.planned(session, &name)?;
    let Running { query, schema, reads, options, ordered } =
        running_query(session, &working.catalog, planned, &mut reader)?;
    let StreamOptions { on_error, retention, keeping } = stream_options(options, &query)?;
    let definition = Definition::Stream { query, schema, on_error, keeping, retention };
    let mut tag = Tag::new("CREATE STREAM");
    if ordered {
        tag.notices.push(format!(
            "ORDER BY without LIMIT has no effect in \"{name}\": order its rows where you SELECT from it"
        ));
    }
    working.create(Object { name, ddl: reader.text().to_string(), reads, definition }, None)?;
    Ok(tag)
}

/// Fails if the columns have types, as those of a stream over a topic in ksqlDB.
fn refuse_types(reader: &TokenReader<'_>) -> Result<()> {
    let is_word = |n| matches!(reader.peek_at(n), Token::Word(_));
    if *reader.peek() != Token::LParen || !is_word(1) || !is_word(2) {
        return Ok(());
    }
    let mut types = reader.clone();
    types.next();
    types.next();
    Err(types.expected("\",\" or \")\"").hint(
        "The columns of a stream have the types of its query. For rows from outside, write CREATE SOURCE s (column type, …) \
         WITH (connector = 'kafka', topic = '…', format = 'json').",
    ))
}

/// The query of a stream or a sink.
pub(super) struct Running {
    pub(super) query: Runs,
    pub(super) schema: SchemaRef,
    pub(super) reads: Vec<Arc<str>>,
    pub(super) options: Vec<(String, String)>,
    /// True if it ends with an ORDER BY that has no effect.
    pub(super) ordered: bool,
}

/// Reads `[(columns)] [WITH (…)] AS query [EMIT CHANGES | EMIT ON WINDOW CLOSE | FOR EACH BATCH]`. If the
/// statement is replayed, `planned` is the stored plan.
pub(super) fn running_query(
    session: &Session,
    catalog: &Catalog,
    planned: Option<BatchQuery>,
    reader: &mut TokenReader<'_>,
) -> Result<Running> {
    let emit = cut_emit(reader)?;
    if emit == Some(Emit::EachBatch) {
        let NamedBatches { query, reads, options } = match planned {
            Some(planned) => planned_before(planned, reader)?,
            None => named_batches(session, catalog, reader)?,
        };
        let schema = query.query.schema.clone();
        let query = Runs::EachBatch(Box::new(query));
        return Ok(Running { query, schema, reads, options, ordered: false });
    }
    let Named { query, reads, options } = maintained_query(session, catalog, planned, reader)?;
    let ordered = query.is_ordered();
    let runs = Runs::Maintained { plan: query.plan, on_close: emit == Some(Emit::OnWindowClose) };
    Ok(Running { query: runs, schema: query.schema, reads, options, ordered })
}

/// Removes the EMIT or FOR EACH BATCH clause from the end, if there is one, and returns it.
pub(super) fn cut_emit(reader: &mut TokenReader<'_>) -> Result<Option<Emit>> {
    let Some((emit, span)) = dialect::trailing_emit(reader) else { return Ok(None) };
    let mut words = reader.text()[span.clone()].split_whitespace();
    if words.any(|word| word.eq_ignore_ascii_case("LIMIT")) {
        return Err(Error::invalid(format!("{} LIMIT in a continuous query", emit.clause()))
            .hint("Leave this LIMIT out.")
            .at(span));
    }
    reader.cut(span.start);
    Ok(Some(emit))
}

/// Checks and parses the options.
pub(super) fn stream_options(options: Vec<(String, String)>, query: &Runs) -> Result<StreamOptions> {
    let options = Options(options.into_iter().collect());
    options.check(OPTIONS).map_err(error::connect)?;
    check_parallelism(&options)?;
    let keeping = Keeping::of(&options)?;
    if let (Some(StateTtl(Some(_))), Runs::EachBatch(_)) = (keeping.state_ttl, query) {
        return Err(Error::invalid("state_ttl of a query FOR EACH BATCH, which keeps no keys")
            .hint("It forgets with each batch; LAST(relation, length) says how much of the past it sees."));
    }
    Ok(StreamOptions {
        on_error: options.get("on_error").map(OnError::parse).transpose()?,
        retention: retention(&options)?.unwrap_or(RETENTION),
        keeping,
    })
}

/// Parses the option `retention`.
pub(super) fn retention(options: &Options) -> Result<Option<Duration>> {
    options.get("retention").map(|value| interval("retention", value, "")).transpose()
}
