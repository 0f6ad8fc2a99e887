//! SHOW forms that list facts of the catalog, as a SELECT would.

use millstream_sql::{Error, Result, TokenReader, qualified_ident};

use crate::session::{Response, Session};
use crate::statements::select;

/// The words after SHOW, and the query that answers them.
const LISTINGS: &[(&[&str], &str)] = &[
    (&["SCHEMAS"], "SELECT nspname AS name FROM pg_catalog.pg_namespace"),
    (
        &["SEQUENCES"],
        "SELECT schemaname AS schema, sequencename AS name, format_type(data_type, NULL) AS type, last_value, increment_by AS increment, \
         min_value, max_value, cycle FROM pg_catalog.pg_sequences",
    ),
    (&["DATABASES"], "SELECT datname AS name FROM pg_catalog.pg_database"),
    (
        &["USERS"],
        "SELECT rolname AS name, rolsuper AS is_super, rolcreatedb AS create_db, rolcreaterole AS create_user, \
         rolcanlogin AS login FROM pg_catalog.pg_roles",
    ),
    (
        &["PARAMETERS"],
        "SELECT name, setting AS value, short_desc AS description FROM pg_catalog.pg_settings WHERE category = 'Engine'",
    ),
    (
        &["PROCESSLIST"],
        "SELECT pid AS id, usename AS user, datname AS database, application_name, state FROM pg_catalog.pg_stat_activity",
    ),
    (
        &["SUBSCRIPTIONS"],
        "SELECT name, relation, status, reason, epoch AS position, waiting_epochs, waiting_bytes FROM \
         millstream.subscriptions WHERE subscription IS NULL",
    ),
    (
        &["JOBS"],
        "SELECT name, status FROM (SELECT name, status FROM millstream.materialized_views UNION ALL SELECT name, status \
         FROM millstream.streams UNION ALL SELECT name, status FROM millstream.sinks) AS jobs WHERE status = 'starting'",
    ),
];

/// Runs one of these forms, if it comes next.
pub(super) async fn run(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Option<Response>> {
    let Some((_, query)) = LISTINGS.iter().find(|(words, _)| reader.keyword(words)) else {
        return columns(session, reader).await;
    };
    let pattern = like(reader)?;
    reader.expect_end()?;
    listed(session, &format!("SELECT * FROM ({query}) AS listed"), "name", pattern).await.map(Some)
}

/// Reads `COLUMNS FROM name [LIKE …]` or `INDEXES FROM name`.
async fn columns(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Option<Response>> {
    let kinds: &[&[&str]] = &[&["COLUMNS"], &["INDEXES"]];
    let mut ahead = reader.clone();
    let Some(kind) = ahead.one_of(kinds) else { return Ok(None) };
    if !ahead.keyword(&["FROM"]) && !ahead.keyword(&["IN"]) {
        return Err(ahead.expected("FROM and the name of a relation"));
    }
    let name = ahead.relation_name()?;
    let at = ahead.last_position();
    let pattern = like(&mut ahead)?;
    ahead.expect_end()?;
    let relation = format!("'{}'::regclass", qualified_ident(&name).replace('\'', "''"));
    let (query, filtered) = match kind {
        0 => (
            format!(
                "SELECT attname AS name, format_type(atttypid, atttypmod) AS type, NOT attnotnull AS nullable, \
                 col_description(attrelid, attnum) AS description FROM pg_catalog.pg_attribute WHERE attrelid = \
                 {relation}"
            ),
            "name",
        ),
        _ => (
            format!(
                "SELECT c.relname AS name, pg_get_indexdef(i.indexrelid) AS definition FROM pg_catalog.pg_index i JOIN \
                 pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = {relation}"
            ),
            "name",
        ),
    };
    let found = listed(session, &query, filtered, pattern).await;
    found.map(Some).map_err(|error| Error { span: None, ..error }.at(at))
}

/// Reads `LIKE 'pattern'` or `ILIKE 'pattern'`.
fn like(reader: &mut TokenReader<'_>) -> Result<Option<(&'static str, String)>> {
    let kinds: &[&[&str]] = &[&["LIKE"], &["ILIKE"]];
    let Some(kind) = reader.one_of(kinds) else { return Ok(None) };
    Ok(Some((["LIKE", "ILIKE"][kind], reader.string()?)))
}

async fn listed(
    session: &mut Session,
    query: &str,
    column: &str,
    pattern: Option<(&'static str, String)>,
) -> Result<Response> {
    let text = match pattern {
        None => query.to_string(),
        Some((like, pattern)) => {
            let pattern = pattern.replace('\'', "''");
            format!("SELECT * FROM ({query}) AS filtered WHERE {column} {like} '{pattern}'")
        }
    };
    select::run(session, TokenReader::new(&text)?).await
}
