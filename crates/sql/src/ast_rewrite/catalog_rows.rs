//! Functions of PostgreSQL's catalog in FROM, as the queries that return their rows.

use datafusion::sql::sqlparser::ast::{Expr, Query, Statement};

use super::postgres::parsed;
use super::scopes::has_columns;
use super::shorthand;

/// Functions and their queries over the arguments `$1`, `$2` and so on. Some return no rows, since the objects that they expand
/// don't exist here.
const QUERIES: [(&str, usize, &str); 8] = [
    ("pg_listening_channels", 0, "SELECT '' AS pg_listening_channels WHERE false"),
    (
        "aclexplode",
        1,
        "SELECT 0 AS grantor, 0 AS grantee, '' AS privilege_type, false AS is_grantable WHERE false",
    ),
    ("pg_partition_ancestors", 1, "SELECT 0 AS relid WHERE false"),
    ("pg_options_to_table", 1, "SELECT '' AS option_name, '' AS option_value WHERE false"),
    (
        "pg_tablespace_databases",
        1,
        "SELECT oid AS pg_tablespace_databases FROM pg_catalog.pg_database WHERE dattablespace = $1",
    ),
    (
        "pg_identify_object",
        3,
        "SELECT pg_object_field($1, $2, $3, 'type') AS type, pg_object_field($1, $2, $3, 'schema') AS schema, \
         pg_object_field($1, $2, $3, 'name') AS name, pg_object_field($1, $2, $3, 'identity') AS identity",
    ),
    (
        "pg_identify_object_as_address",
        3,
        "SELECT pg_object_field($1, $2, $3, 'type') AS type, pg_object_names($1, $2, $3) AS object_names, \
         pg_object_arguments($1, $2, $3) AS object_args",
    ),
    (
        "pg_get_object_address",
        3,
        "SELECT pg_object_address($1, CAST($2 AS TEXT[]), CAST($3 AS TEXT[]), 'classid') AS classid, \
         pg_object_address($1, CAST($2 AS TEXT[]), CAST($3 AS TEXT[]), 'objid') AS objid, \
         pg_object_address($1, CAST($2 AS TEXT[]), CAST($3 AS TEXT[]), 'objsubid') AS objsubid",
    ),
];

/// The query of `pg_options_to_table` over an array that is written out. Columns of options in the catalog are all empty.
const OPTIONS: &str = "SELECT split_part(o, '=', 1) AS option_name, \
     CASE WHEN strpos(o, '=') > 0 THEN substr(o, strpos(o, '=') + 1) END AS option_value FROM UNNEST($1) AS u(o)";

/// PostgreSQL 15's keywords: the word, its category, and `t` if it may name a column without AS.
const KEYWORDS: &str = include_str!("keywords.txt");

/// Returns the query of a function in FROM, and whether it reads columns of relations before it.
pub(super) fn query(called: &str, arguments: &[Expr]) -> Option<(Box<Query>, bool)> {
    if called == "pg_get_keywords" {
        return Some((filled(&keywords(), &[])?, false));
    }
    let (_, _, text) =
        QUERIES.iter().find(|(name, count, _)| *name == called && *count == arguments.len())?;
    let has_columns = arguments.iter().any(has_columns);
    if called == "pg_options_to_table" && !has_columns {
        return Some((filled(OPTIONS, arguments)?, false));
    }
    Some((filled(text, arguments)?, has_columns && text.contains('$')))
}

/// Parses a query and puts the arguments in place of `$1` and so on.
fn filled(text: &str, arguments: &[Expr]) -> Option<Box<Query>> {
    let Ok(Statement::Query(mut query)) = parsed(text) else { return None };
    shorthand::fill(&mut query, arguments.to_vec());
    Some(query)
}

/// Returns a query for the keywords.
fn keywords() -> String {
    let words = KEYWORDS.trim_end().replace('\n', ",");
    format!(
        "SELECT split_part(k, ' ', 1) AS word, split_part(k, ' ', 2) AS catcode, \
         split_part(k, ' ', 3) = 't' AS barelabel, \
         CASE split_part(k, ' ', 2) WHEN 'U' THEN 'unreserved' WHEN 'R' THEN 'reserved' \
         WHEN 'C' THEN 'unreserved (cannot be function or type name)' \
         ELSE 'reserved (can be function or type name)' END AS catdesc, \
         CASE split_part(k, ' ', 3) WHEN 't' THEN 'can be bare label' ELSE 'requires AS' END AS baredesc \
         FROM UNNEST(string_to_array('{words}', ',')) AS u(k)"
    )
}
