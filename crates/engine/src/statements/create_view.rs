//! `CREATE VIEW [IF NOT EXISTS] name AS SELECT …`

use millstream_sql::{Query, Result, TokenReader};

use super::{existed, new_name, reads_of, within};
use crate::catalog::{Definition, Object};
use crate::plan::Working;
use crate::session::{Session, Tag};

pub(crate) fn plan(session: &Session, working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let (name, exists) = new_name(working, &mut reader)?;
    if exists {
        return Ok(existed("VIEW", &name));
    }
    reader.expect_keyword(&["AS"])?;
    let (query, reads) = named_query(session, working, &reader)?;
    let definition = Definition::View { raw: query.raw, schema: query.schema };
    working.create(Object { name, ddl: reader.text().to_string(), reads, definition }, None)?;
    Ok(Tag::new("CREATE VIEW"))
}

/// The query that is left of a statement, whose columns must have different names, and what it reads.
pub(super) fn named_query(
    session: &Session,
    working: &Working,
    reader: &TokenReader<'_>,
) -> Result<(Query, Vec<std::sync::Arc<str>>)> {
    let (text, offset) = within(reader);
    let query = session.shared.planner.query(text, working.catalog.as_ref()).map_err(|error| error.shift(offset))?;
    query.check_names()?;
    let reads = reads_of(&query.raw, &working.catalog)?;
    Ok((query, reads))
}
