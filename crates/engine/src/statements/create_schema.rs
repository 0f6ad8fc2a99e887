//! `CREATE SCHEMA [IF NOT EXISTS] name`: a schema, whose objects are called `name.object`.

use millstream_sql::{Error, PUBLIC, Result, SYSTEM_SCHEMAS, TokenReader};

use crate::catalog::{Definition, Object, schema_key};
use crate::plan::Working;
use crate::session::{Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_SCHEMA: Statement = Statement {
    words: &[&["CREATE", "SCHEMA"]],
    synopsis: "CREATE SCHEMA [IF NOT EXISTS] name [AUTHORIZATION role];",
    purpose: "make a schema",
    pages: &["create-schema"],
    begins: None,
    run: Run::Plan(|session, working, reader| Box::pin(async move { plan(session, working, reader) })),
    rules: Rules::CATALOG,
};

fn plan(session: &Session, working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let lenient = reader.keyword(&["IF", "NOT", "EXISTS"]);
    let start = reader.position();
    // `CREATE SCHEMA AUTHORIZATION joe` makes a schema called joe.
    let named = if reader.is_keyword(&["AUTHORIZATION"]) { None } else { Some(reader.identifier()?) };
    let owner = if reader.keyword(&["AUTHORIZATION"]) { Some(reader.identifier()?) } else { None };
    let name = named.or_else(|| owner.clone()).ok_or_else(|| reader.expected("a name"))?;
    let at = start.start..reader.last_position().end;
    let mut tag = Tag::new("CREATE SCHEMA");
    if owner.is_some() {
        tag.notices.push("AUTHORIZATION has no effect: objects have no owners".into());
    }
    if !reader.is_end() {
        return Err(Error::unsupported("CREATE SCHEMA with objects in it")
            .at(reader.position())
            .hint("Create them by statements of their own: CREATE TABLE schema.name (…)."));
    }
    let key = schema_key(&name);
    let is_system = name == PUBLIC || SYSTEM_SCHEMAS.contains(&name.as_str());
    if is_system || working.catalog.find(&key).is_some() {
        if lenient {
            tag.notices.push(format!("schema \"{name}\" already exists, nothing was done"));
            if !is_system {
                working.existing.push(key.into());
            }
            return Ok(tag);
        }
        return Err(Error::invalid(format!("schema \"{name}\" already exists"))
            .at(at)
            .hint("Choose another name, or use IF NOT EXISTS."));
    }
    let is_own = working.is_replay || session.variables.temporary.get().is_some_and(|own| own.name() == name);
    if name.starts_with("pg_") && !is_own || name.is_empty() || name.contains('.') {
        return Err(Error::invalid(format!("schema \"{name}\" can't be created")).at(at).hint(
            "The name of a schema has no dot, and does not begin with pg_, which is the engine's own.",
        ));
    }
    if let Some(taken) = working.catalog.objects().find(|object| object.name.starts_with(&*key)) {
        return Err(Error::invalid(format!(
            "schema \"{name}\" can't be created: the {} \"{}\" has a name like one of its objects",
            taken.definition.kind(),
            taken.name
        ))
        .at(at)
        .hint("Rename it first: ALTER … RENAME TO."));
    }
    let (ddl, reads, definition) = (reader.text().to_string(), Vec::new(), Definition::Schema);
    working.create(Object { name: key.into(), ddl, reads, definition }, None)?;
    Ok(tag)
}
