//! `CREATE MATERIALIZED VIEW [IF NOT EXISTS] name [(columns)] AS SELECT …`

use millstream_sql::{Result, TokenReader};

use super::create_view::{check_continuous, named_query};
use super::{existed, new_name};
use crate::catalog::{Definition, Object};
use crate::plan::Working;
use crate::session::{Session, Tag};

pub(crate) fn plan(session: &Session, working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let (name, exists) = new_name(working, &mut reader)?;
    if exists {
        return Ok(existed("MATERIALIZED VIEW", &name));
    }
    let (query, reads) = named_query(session, &working.catalog, &mut reader)?;
    check_continuous(session, &query)?;
    let mut tag = Tag::new("CREATE MATERIALIZED VIEW");
    if query.is_ordered() {
        tag.notices.push(format!(
            "ORDER BY without LIMIT has no effect in \"{name}\": order its rows where you SELECT from it"
        ));
    }
    let definition = Definition::MaterializedView { plan: query.plan, schema: query.schema };
    working.create(Object { name, ddl: reader.text().to_string(), reads, definition }, None)?;
    Ok(tag)
}
