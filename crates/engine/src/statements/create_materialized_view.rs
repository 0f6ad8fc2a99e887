//! `CREATE MATERIALIZED VIEW [IF NOT EXISTS] name [(columns)] [WITH (on_error = …, state_ttl = '…', …)] AS
//! SELECT … [EMIT ON WINDOW CLOSE]`

use millstream_connect::{OptionDoc, Options};
use millstream_sql::{Emit, Result, TokenReader, dialect};

use super::create_stream::cut_emit;
use super::create_table_as::cut_with_data;
use super::create_view::{Named, maintained_query};
use super::{existed, new_name};
use crate::catalog::{Definition, Object};
use crate::error;
use crate::plan::Working;
use crate::session::{Session, Tag};
use crate::settings::{Keeping, OnError, count};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_MATERIALIZED_VIEW: Statement = Statement {
    words: &[&["CREATE", "MATERIALIZED", "VIEW"]],
    synopsis: concat!(
        "CREATE [OR REPLACE] MATERIALIZED VIEW [IF NOT EXISTS] name [(column, …)]\n",
        "  [WITH (option = value, …)]\n",
        "  AS query [EMIT ON WINDOW CLOSE] [WITH [NO] DATA];",
    ),
    purpose: "store and maintain the result of a query",
    pages: &["create-materialized-view"],
    begins: None,
    run: Run::Plan(|session, working, reader| Box::pin(async move { plan(session, working, reader) })),
    rules: Rules::CATALOG,
};

/// The option for closing windows of event time.
pub(super) const ALLOWED_LATENESS: OptionDoc = OptionDoc {
    name: "allowed_lateness",
    default: Some("the setting allowed_lateness"),
    doc: "0; or by how much the watermark must have passed the end of a window of event time when it closes",
};

/// The option for rows that fail.
pub(super) const ON_ERROR: OptionDoc = OptionDoc {
    name: "on_error",
    default: Some("the setting on_error"),
    doc: "fail: reading it fails while it has errors; keep: reads the rest",
};

/// An option that is accepted and has no effect.
pub(super) const PARALLELISM: OptionDoc = OptionDoc {
    name: "parallelism",
    default: Some("the setting parallelism"),
    doc: "accepted for compatibility: the engine chooses how many threads a maintained query uses",
};

/// The option for idle keys.
pub(super) const STATE_TTL: OptionDoc = OptionDoc {
    name: "state_ttl",
    default: Some("the setting state_ttl"),
    doc: "off; or for how long a key may be idle, by batch time, before its state is dropped",
};

/// The options of a materialized view.
const OPTIONS: &[OptionDoc] = &[ALLOWED_LATENESS, ON_ERROR, PARALLELISM, STATE_TTL];

pub(crate) fn plan(session: &Session, working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let (name, exists) = new_name(working, &mut reader)?;
    if exists {
        return Ok(existed("MATERIALIZED VIEW", &name));
    }
    let is_without_data = cut_with_data(&mut reader);
    let on_close = cut_on_close(&mut reader)?;
    let planned = working.planned(session, &name)?;
    let Named { query, reads, options } = maintained_query(session, &working.catalog, planned, &mut reader)?;
    let (on_error, keeping) = view_options(options)?;
    let mut tag = Tag::new("CREATE MATERIALIZED VIEW");
    if query.is_ordered() {
        tag.notices.push(format!(
            "ORDER BY without LIMIT has no effect in \"{name}\": order its rows where you SELECT from it"
        ));
    }
    if is_without_data {
        tag.notices.push(format!("WITH NO DATA has no effect: \"{name}\" is always up to date"));
    }
    let (plan, schema) = (query.plan, query.schema);
    let definition = Definition::MaterializedView { plan, on_close, schema, on_error, keeping };
    working.create(Object { name, ddl: reader.text().to_string(), reads, definition }, None)?;
    Ok(tag)
}

/// Removes an EMIT ON WINDOW CLOSE from the end. Returns true if there was one.
pub(super) fn cut_on_close(reader: &mut TokenReader<'_>) -> Result<bool> {
    match dialect::trailing_emit(reader) {
        Some((Emit::OnWindowClose, _)) => Ok(cut_emit(reader)?.is_some()),
        _ => Ok(false),
    }
}

/// Parses the options for failing rows and for the retention of state.
pub(super) fn view_options(options: Vec<(String, String)>) -> Result<(Option<OnError>, Keeping)> {
    let options = Options(options.into_iter().collect());
    options.check(OPTIONS).map_err(error::connect)?;
    check_parallelism(&options)?;
    let on_error = options.get("on_error").map(OnError::parse).transpose()?;
    Ok((on_error, Keeping::of(&options)?))
}

/// Checks the option `parallelism`, which has no effect.
pub(super) fn check_parallelism(options: &Options) -> Result<()> {
    options.get("parallelism").map_or(Ok(()), |value| count("parallelism", value).map(|_| ()))
}
