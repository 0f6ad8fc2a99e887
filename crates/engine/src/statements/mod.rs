//! The statements, one per file: syntax and execution together.

pub(crate) mod add_column;
mod advance;
mod alter_source;
mod alter_watermark;
mod checkpoint;
mod copy;
mod create_aggregate;
mod create_function;
mod create_materialized_view;
mod create_sink;
mod create_source;
mod create_stream;
mod create_subscription;
pub(crate) mod create_table;
mod create_view;
mod cursor;
mod describe;
mod discard;
mod drop;
mod emit_changes;
mod explain;
mod explain_why;
mod flush;
mod for_each_batch;
mod format_encode;
mod modify;
mod pause;
mod prepared;
pub(crate) mod put_late;
pub(crate) mod rename;
pub(crate) mod replace;
mod reset;
pub(crate) mod select;
mod set;
mod show;
mod sink_into;
mod stop;
mod subscribe;
mod transaction;
mod verify;

use std::sync::Arc;

pub(crate) use emit_changes::follow_query;
pub(crate) use select::{begins as begins_query, over};
pub(crate) use subscribe::follow_named;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use millstream_sql::{Error, Operation, RelationTable, Result, TokenReader};

use crate::pg;
use crate::plan::Working;
use crate::session::{Response, Session, Tag};
use crate::stamp::names_batch;
use crate::system;

/// The first words of statements that are planned but not implemented.
const NOT_YET: &[&[&str]] = &[
    &["CREATE", "SECRET"],
    &["CREATE", "CONNECTION"],
    &["CREATE", "INDEX"],
    &["CREATE", "SCHEMA"],
    &["CREATE", "OR", "REPLACE"],
    &["ALTER"],
    &["LISTEN"],
    &["NOTIFY"],
    &["MERGE"],
    &["TRUNCATE"],
];

/// The first words of all statements, for messages.
const KNOWN: &str = "CREATE SOURCE, TABLE, VIEW, MATERIALIZED VIEW, STREAM, SINK, SUBSCRIPTION, FUNCTION or AGGREGATE, ALTER SOURCE, TABLE, VIEW, MATERIALIZED VIEW, STREAM or SINK, \
     DROP, INSERT, UPDATE, \
     DELETE, COPY, SELECT, BEGIN, COMMIT, ROLLBACK, SUBSCRIBE, DECLARE, FETCH, MOVE, CLOSE, PREPARE, EXECUTE, \
     DEALLOCATE, EXPLAIN, VERIFY, DESCRIBE, SHOW, SET, RESET, DISCARD, PAUSE, RESUME, FLUSH, CHECKPOINT, ADVANCE, STOP";

/// The kinds of routines that CREATE supports.
pub(crate) const ROUTINES: &[&[&str]] = &[&["FUNCTION"], &["AGGREGATE"]];

/// The other kinds of objects that CREATE supports.
pub(crate) const KINDS: &[&[&str]] = &[
    &["SOURCE"],
    &["TABLE"],
    &["VIEW"],
    &["MATERIALIZED", "VIEW"],
    &["SINK"],
    &["STREAM"],
    &["SUBSCRIPTION"],
];

/// Returns true if a statement changes the catalog, so that it takes effect together with adjacent ones.
pub(crate) fn is_ddl(text: &str) -> Result<bool> {
    let reader = TokenReader::new(text)?;
    let changes = reader.is_keyword(&["CREATE"]) || reader.is_keyword(&["DROP"]);
    Ok(changes && !replace::begins(&reader))
}

/// Plans a CREATE or DROP against the catalog left by the previous statements.
pub(crate) async fn plan_ddl(session: &Session, working: &mut Working, text: &str) -> Result<Tag> {
    let mut reader = TokenReader::new(text)?;
    refuse_unbuilt(&reader)?;
    if reader.keyword(&["DROP"]) {
        return drop::plan(session, working, reader);
    }
    reader.expect_keyword(&["CREATE"])?;
    let replace = reader.keyword(&["OR", "REPLACE"]);
    match reader.one_of(ROUTINES) {
        Some(0) => return create_function::plan(session, working, reader, replace),
        Some(_) => return create_aggregate::plan(session, working, reader, replace),
        None => {}
    }
    match reader.one_of(KINDS) {
        Some(0) => create_source::plan(session, working, reader).await,
        Some(1) => create_table::plan(session, working, reader),
        Some(2) => create_view::plan(session, working, reader),
        Some(3) => create_materialized_view::plan(session, working, reader),
        Some(4) => create_sink::plan(session, working, reader).await,
        Some(5) => create_stream::plan(session, working, reader),
        Some(6) => create_subscription::plan(working, reader),
        _ => Err(reader.expected(
            "SOURCE, TABLE, VIEW, MATERIALIZED VIEW, STREAM, SINK, SUBSCRIPTION, FUNCTION or AGGREGATE",
        )),
    }
}

/// Runs any other statement.
pub(crate) async fn run(session: &mut Session, mut reader: TokenReader<'_>) -> Result<Response> {
    if let Some(altered) = alter(session, &mut reader).await {
        return altered;
    }
    refuse_unbuilt(&reader)?;
    if transaction::begins(&reader) {
        return transaction::run(session, &mut reader).await;
    }
    let first: &[&[&str]] = &[
        &["INSERT"],
        &["UPDATE"],
        &["DELETE"],
        &["EXPLAIN"],
        &["DESCRIBE"],
        &["DESC"],
        &["SHOW"],
        &["SET"],
        &["FLUSH"],
        &["ADVANCE"],
        &["VERIFY"],
        &["SUBSCRIBE"],
        &["PAUSE"],
        &["RESUME"],
        &["STOP"],
        &["DECLARE"],
        &["FETCH"],
        &["MOVE"],
        &["CLOSE"],
        &["COPY"],
        &["RESET"],
        &["DISCARD"],
        &["PREPARE"],
        &["EXECUTE"],
        &["DEALLOCATE"],
        &["UNLISTEN"],
        &["CHECKPOINT"],
    ];
    match reader.clone().one_of(first) {
        Some(0..=2) => modify::run(session, reader).await,
        Some(3) => explain::run(session, after(&mut reader)).await,
        Some(4 | 5) => describe::run(session, after(&mut reader)).await,
        Some(6) => show::run(session, after(&mut reader)).await,
        Some(7) => set::run(session, after(&mut reader)).await,
        Some(8) => flush::run(session, after(&mut reader)).await,
        Some(9) => advance::run(session, after(&mut reader)).await,
        Some(10) => verify::run(session, after(&mut reader)).await,
        Some(11) => subscribe::run(session, after(&mut reader)).await,
        Some(12) => pause::run(session, after(&mut reader), true).await,
        Some(13) => pause::run(session, after(&mut reader), false).await,
        Some(14) => stop::run(session, after(&mut reader)).await,
        Some(15) => cursor::declare(session, after(&mut reader)).await,
        Some(16) => cursor::fetch(session, after(&mut reader)),
        Some(17) => cursor::skip(session, after(&mut reader)).await,
        Some(18) => cursor::close(session, after(&mut reader)),
        Some(19) => copy::run(session, after(&mut reader)).await,
        Some(20) => reset::run(session, after(&mut reader)).await,
        Some(21) => discard::run(session, after(&mut reader)),
        Some(22) => prepared::prepare(session, after(&mut reader)).await,
        Some(23) => prepared::execute(session, after(&mut reader)).await,
        Some(24) => prepared::deallocate(session, after(&mut reader)),
        // LISTEN is not implemented, but connection pools send this as a precaution.
        Some(25) => Ok(Tag::new("UNLISTEN").into()),
        Some(26) => checkpoint::run(session, after(&mut reader)).await,
        _ if Operation::of(&reader).is_some() => modify::run(session, reader).await,
        _ if select::begins(&reader) => select::run(session, reader).await,
        _ => Err(reader.expected("a statement").hint(format!("The statements are {KNOWN}."))),
    }
}

/// Runs a statement that alters an object. Returns `None` for other statements.
async fn alter(session: &Session, reader: &mut TokenReader<'_>) -> Option<Result<Response>> {
    if alter_watermark::begins(reader) {
        return Some(alter_watermark::run(session, reader).await);
    }
    if replace::begins(reader) {
        return Some(replace::run(session, reader).await);
    }
    if add_column::begins(reader) {
        return Some(add_column::run(session, reader).await);
    }
    if rename::begins(reader) {
        return Some(rename::run(session, reader).await);
    }
    match reader.keyword(&["ALTER", "SOURCE"]) {
        true => Some(alter_source::run(session, reader).await),
        false => None,
    }
}

/// Skips the first word.
fn after<'a, 'b>(reader: &'b mut TokenReader<'a>) -> &'b mut TokenReader<'a> {
    reader.next();
    reader
}

fn refuse_unbuilt(reader: &TokenReader<'_>) -> Result<()> {
    let replaceable = ["FUNCTION", "AGGREGATE"];
    if replace::begins(reader)
        || replaceable.iter().any(|kind| reader.is_keyword(&["CREATE", "OR", "REPLACE", kind]))
    {
        return Ok(());
    }
    if reader.is_keyword(&["CREATE", "OR", "REPLACE", "SINK"]) {
        return Err(Error::unsupported("CREATE OR REPLACE SINK").at(reader.position()).hint(
            "FLUSH lets the old one deliver what it has; then DROP SINK and CREATE SINK, sent together, take effect \
             together. The new one begins with all that its relation holds.",
        ));
    }
    let mut ahead = reader.clone();
    if ahead.keyword(&["ALTER", "TABLE"])
        && ahead.relation_name().is_ok()
        && ahead.is_keyword(&["DROP"])
        && !ahead.is_keyword(&["DROP", "CONSTRAINT"])
    {
        return Err(Error::unsupported("ALTER TABLE … DROP COLUMN").at(ahead.position()).hint(
            "CREATE VIEW v AS SELECT the other columns FROM the table, and read that: the column may stay NULL.",
        ));
    }
    match NOT_YET.iter().find(|words| reader.is_keyword(words)) {
        Some(words) => Err(Error::unsupported(words.join(" ")).at(reader.position())),
        None => Ok(()),
    }
}

/// The kinds of objects that can be renamed or get a column.
const ALTERED: &[&[&str]] =
    &[&["TABLE"], &["SOURCE"], &["VIEW"], &["MATERIALIZED", "VIEW"], &["STREAM"], &["SINK"]];

/// Returns true if the statement is `ALTER kind name word …`.
fn alters(reader: &TokenReader<'_>, word: &str) -> bool {
    let mut ahead = reader.clone();
    ahead.keyword(&["ALTER"])
        && ahead.one_of(ALTERED).is_some()
        && ahead.relation_name().is_ok()
        && ahead.is_keyword(&[word])
}

/// Fails if a name is in one of the engine's own schemas.
fn refuse_system_name(name: &str, cant: &str) -> Result<()> {
    if !system::is_name(name) && !pg::is_name(name) {
        return Ok(());
    }
    let schema = name.split('.').next().unwrap_or_default();
    Err(Error::invalid(format!("\"{name}\" can't {cant}: the schema {schema} is the engine's own")))
}

/// Reads `[IF NOT EXISTS] name`. Returns the name, and true if the object exists already and the statement
/// does nothing.
fn new_name(working: &mut Working, reader: &mut TokenReader<'_>) -> Result<(Arc<str>, bool)> {
    let lenient = reader.keyword(&["IF", "NOT", "EXISTS"]);
    let name: Arc<str> = reader.relation_name()?.into();
    let position = reader.last_position();
    refuse_system_name(&name, "be created").map_err(|error| error.at(position.clone()))?;
    match working.catalog.find(&name) {
        None => Ok((name, false)),
        Some(_) if lenient => {
            working.existing.push(name.clone());
            Ok((name, true))
        }
        Some(old) => {
            let error = format!("{} \"{name}\" already exists", old.definition.kind());
            Err(Error::invalid(error)
                .at(position)
                .hint("Drop it first, choose another name, or use IF NOT EXISTS."))
        }
    }
}

/// Returns the tag of a CREATE that did nothing.
fn existed(kind: &str, name: &str) -> Tag {
    Tag {
        text: format!("CREATE {kind}"),
        notices: vec![format!("\"{name}\" already exists, nothing was done")],
    }
}

/// Returns the relations that a plan scans, each once, with views resolved.
pub(crate) fn relations_of(plan: &LogicalPlan) -> Result<Vec<Arc<str>>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(provider) = millstream_sql::relation_of(scan)
            && let Some(table) = provider.downcast_ref::<RelationTable>()
            && !names.iter().any(|name| name.as_ref() == table.name())
        {
            names.push(table.name().into());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
}

/// Returns true if a plan reads the columns of the batch.
pub(crate) fn reads_batch(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(provider) = millstream_sql::relation_of(scan)
            && let Some(table) = provider.downcast_ref::<RelationTable>()
        {
            found |= names_batch(table.columns());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Returns the name of the relation of a sink's own query. No statement can use it.
pub(crate) fn own_relation(sink: &str) -> Arc<str> {
    format!("\0query of sink {sink}").into()
}

/// Returns the rest of a statement, and the offset to add to an error's position in it.
fn within<'a>(reader: &TokenReader<'a>) -> (&'a str, usize) {
    let range = reader.rest_text();
    (&reader.text()[range.clone()], range.start)
}
