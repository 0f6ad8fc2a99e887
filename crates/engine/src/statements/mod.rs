//! The statements, one per file: syntax, execution, rules and description together. `table.rs` lists them.

mod advance;
mod alter_source;
pub(crate) mod alter_table;
mod alter_watermark;
mod analyze;
mod checkpoint;
mod comment;
mod copy;
mod create_aggregate;
mod create_function;
mod create_index;
mod create_materialized_view;
mod create_schema;
mod create_sink;
mod create_source;
mod create_stream;
mod create_subscription;
pub(crate) mod create_table;
pub(crate) mod create_table_as;
mod create_temporary;
mod create_type;
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
pub(crate) mod late_insert;
mod modify;
mod no_effect;
mod not_yet;
mod pause;
mod prepared;
pub(crate) mod rename;
pub(crate) mod replace;
mod reset;
pub(crate) mod select;
mod sequence;
mod set;
mod show;
mod sink_into;
mod statement_set;
mod stop;
mod subscribe;
mod swap;
mod table;
mod table_like;
mod transaction;
mod truncate;
mod verify;

use std::ops::Range;
use std::sync::Arc;

pub(crate) use emit_changes::follow_query;
pub(crate) use select::{begins as begins_query, over};
pub use statement_set::open_statement_set;
pub(crate) use subscribe::follow_named;
pub(crate) use table::STATEMENTS;
pub use table::{rows_tag, statements};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Error, Lexeme, RelationTable, Result, TokenReader, sqlstate};

use crate::catalog::{Catalog, Object};
use crate::ddl;
use crate::pg;
use crate::plan::Working;
use crate::session::{Response, Session, Tag};
use crate::stamp::names_batch;
use crate::system;
use crate::temporary;
use crate::transaction::say_at_once;
use crate::variables::reader_of;

/// The kinds of objects that can be altered.
const ALTERED: &[&[&str]] =
    &[&["TABLE"], &["SOURCE"], &["VIEW"], &["MATERIALIZED", "VIEW"], &["STREAM"], &["SINK"], &["SEQUENCE"]];

/// Runs one statement of a session.
pub(crate) async fn run(session: &mut Session, text: &str) -> Result<Response> {
    let reader = reader_of(session, text)?;
    // The journal has statements of the engine itself.
    if !session.is_recovering {
        create_table_as::refuse_unfinished(&reader)?;
        refuse_other_sessions(session, &reader)?;
    }
    session.enter(&reader)?;
    run_entered(session, text).await
}

/// Fails if a statement names the schema of another session's temporary objects.
fn refuse_other_sessions(session: &Session, reader: &TokenReader<'_>) -> Result<()> {
    if !reader.text().contains(temporary::PREFIX) {
        return Ok(());
    }
    let own = session.variables.temporary.get();
    let is_other = |word: &str| {
        let number = word.strip_prefix(temporary::PREFIX).unwrap_or_default();
        let is_one = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is_one && own.is_none_or(|own| own.name() != word)
    };
    let names = |lexeme: &&Lexeme| matches!(&lexeme.token.token, Token::Word(word) if is_other(&word.value));
    match reader.rest().iter().find(names) {
        None => Ok(()),
        Some(lexeme) => Err(Error::invalid(format!(
            "the schema {} has the temporary objects of another session",
            lexeme.token.token
        ))
        .at(lexeme.range.clone())
        .code(sqlstate::INSUFFICIENT_PRIVILEGE)),
    }
}

/// Runs a statement that the transaction, if there is one, has let in.
async fn run_entered(session: &mut Session, text: &str) -> Result<Response> {
    let reader = reader_of(session, text)?;
    if STATEMENTS.is_ddl(&reader) {
        let mut tags = ddl::change(session, &[text]).await.map_err(|(_, error)| error)?;
        say_at_once(session.transaction.as_ref(), &mut tags);
        return Ok(tags.pop().unwrap_or_default().into());
    }
    match STATEMENTS.run(session, reader).await? {
        Response::Rows(rows) => Ok(Response::Rows(session.watched(rows))),
        done => Ok(done),
    }
}

/// Returns true if the statement is `ALTER kind name word …`.
fn alters(reader: &TokenReader<'_>, word: &str) -> bool {
    let mut ahead = reader.clone();
    let is_alter = ahead.keyword(&["ALTER"]) && ahead.one_of(ALTERED).is_some();
    ahead.keyword(&["IF", "EXISTS"]);
    ahead.keyword(&["ONLY"]);
    is_alter && ahead.relation_name().is_ok() && ahead.is_keyword(&[word])
}

/// Reads `ALTER kind`. Returns the kind: TABLE, MATERIALIZED VIEW.
fn altered_kind(reader: &mut TokenReader<'_>) -> Result<String> {
    reader.expect_keyword(&["ALTER"])?;
    let kind = reader.one_of(ALTERED).and_then(|kind| ALTERED.get(kind));
    Ok(kind.ok_or_else(|| reader.expected("a kind of object, such as TABLE"))?.join(" "))
}

/// Returns the object of a name at a position, which must be of the kind that the statement names after ALTER. The hint gets
/// the kind of another object.
fn altered_object<'a>(
    catalog: &'a Catalog,
    kind: &str,
    name: &str,
    at: Range<usize>,
    hint: impl FnOnce(&str) -> Option<String>,
) -> Result<&'a Arc<Object>> {
    let object = catalog.get(name).map_err(|error| error.at(at.clone()))?;
    let found = object.definition.kind();
    if !found.eq_ignore_ascii_case(kind) {
        return Err(Error::invalid(format!("\"{name}\" is a {found}, not a {}", kind.to_lowercase()))
            .at(at)
            .maybe_hint(hint(found)));
    }
    Ok(object)
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
    // A name that is looked up on a path has a schema afterwards.
    let is_qualified = reader.is_qualified() || working.catalog.search_path().is_some();
    let name: Arc<str> = reader.new_relation_name()?.into();
    let position = reader.last_position();
    refuse_system_name(&name, "be created").map_err(|error| error.at(position.clone()))?;
    if !working.is_replay {
        working.catalog.schemas().check(&name, is_qualified).map_err(|error| error.at(position.clone()))?;
    }
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

/// The beginning of the name of the relation of a sink's own query. No statement can use it.
const OWN_RELATION: &str = "\0query of sink ";

/// Returns the name of the relation of a sink's own query.
pub(crate) fn own_relation(sink: &str) -> Arc<str> {
    format!("{OWN_RELATION}{sink}").into()
}

/// Returns the sink whose own query has this relation.
pub(crate) fn sink_of(relation: &str) -> Option<&str> {
    relation.strip_prefix(OWN_RELATION)
}

/// Returns the rest of a statement, and the offset to add to an error's position in it.
fn within<'a>(reader: &TokenReader<'a>) -> (&'a str, usize) {
    let range = reader.rest_text();
    (&reader.text()[range.clone()], range.start)
}
