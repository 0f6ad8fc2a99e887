//! `CREATE [UNIQUE] INDEX [name] ON table (column, …)`, `DROP INDEX name`

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::without_index;
use millstream_sql::functions::quote_ident;
use millstream_sql::{
    Error, IndexKind, PUBLIC, Result, TableIndex, TokenReader, WrittenIndex, name_in, qualified_ident,
    relation_ident, split_schema, suggestion,
};

use super::alter_table::{Planned, TableChange, alter};
use crate::catalog::{Catalog, Definition, Object};
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_INDEX: Statement = Statement {
    words: &[&["CREATE", "INDEX"], &["CREATE", "UNIQUE", "INDEX"]],
    synopsis: "CREATE [UNIQUE] INDEX [[IF NOT EXISTS] name] ON table (column, …) [NULLS [NOT] DISTINCT];",
    purpose: "define an index of a table",
    pages: &["create-index"],
    begins: Some(|reader| {
        reader.is_keyword(&["CREATE", "INDEX"]) || reader.is_keyword(&["CREATE", "UNIQUE", "INDEX"])
    }),
    run: Run::Alone(|session, reader| Box::pin(async move { alter(session, &reader, plan).await })),
    rules: Rules::ALTER,
};

pub(super) static DROP_INDEX: Statement = Statement {
    words: &[&["DROP", "INDEX"]],
    synopsis: "DROP INDEX [IF EXISTS] name;",
    purpose: "remove an index",
    pages: &["create-index"],
    begins: None,
    run: Run::Alone(|session, reader| Box::pin(async move { alter(session, &reader, plan_drop).await })),
    rules: Rules::ALTER,
};

pub(super) static ALTER_INDEX: Statement = Statement {
    words: &[&["ALTER", "INDEX"]],
    synopsis: "ALTER INDEX [IF EXISTS] name RENAME TO new_name;",
    purpose: "rename an index",
    pages: &["create-index"],
    begins: Some(|reader| reader.is_keyword(&["ALTER", "INDEX"])),
    run: Run::Alone(|session, reader| Box::pin(async move { rename(session, reader).await })),
    rules: Rules::ALTER,
};

/// Renames an index by ALTER TABLE … RENAME INDEX.
async fn rename(session: &mut Session, mut reader: TokenReader<'_>) -> Result<Response> {
    reader.expect_keyword(&["ALTER", "INDEX"])?;
    let lenient = reader.keyword(&["IF", "EXISTS"]);
    let catalog = session.catalog();
    let name = index_name(&catalog, &mut reader)?;
    let at = reader.last_position();
    reader.expect_keyword(&["RENAME", "TO"])?;
    let to = reader.identifier()?;
    reader.expect_end()?;
    let Some(table) = catalog.indexed(&name) else {
        let error = format!("index \"{name}\" does not exist");
        if lenient {
            let notices = vec![format!("{error}, nothing was done")];
            return Ok(Tag { notices, ..Tag::new("ALTER INDEX") }.into());
        }
        return Err(missing(&catalog, &name).at(at));
    };
    let (_, local) = catalog.schemas().place_of(&name);
    let renames = format!(
        "ALTER TABLE {} RENAME INDEX {} TO {}",
        qualified_ident(&table.name),
        quote_ident(local),
        quote_ident(&to)
    );
    let done = Box::pin(super::run_entered(session, &renames)).await;
    // A position in the other text means nothing.
    done.map_err(|error| Error { span: None, ..error }.at(at))?;
    Ok(Tag::new("ALTER INDEX").into())
}

/// Reads the name of an index. Without a schema, it is in one of the search path.
fn index_name(catalog: &Catalog, reader: &mut TokenReader<'_>) -> Result<String> {
    let is_qualified = reader.is_qualified();
    let name = reader.relation_name()?;
    if is_qualified {
        return Ok(name);
    }
    let mut schemas = catalog.schemas().current().into_iter().map(|schema| name_in(&schema, &name));
    Ok(schemas.find(|name| catalog.indexed(name).is_some()).unwrap_or(name))
}

fn missing(catalog: &Catalog, name: &str) -> Error {
    let names =
        catalog.objects().flat_map(|object| object.indexes()).map(|index| index.0).collect::<Vec<_>>();
    let hint = suggestion::did_you_mean(name, names.iter().map(String::as_str));
    Error::invalid(format!("index \"{name}\" does not exist")).maybe_hint(hint)
}

/// Returns the new definition of the table.
fn plan(session: &Session, reader: &mut TokenReader<'_>) -> Result<Planned> {
    reader.expect_keyword(&["CREATE"])?;
    let unique = reader.keyword(&["UNIQUE"]);
    reader.expect_keyword(&["INDEX"])?;
    reader.keyword(&["CONCURRENTLY"]);
    let lenient = reader.keyword(&["IF", "NOT", "EXISTS"]);
    let is_qualified = reader.is_qualified();
    let mut name = match reader.is_keyword(&["ON"]) {
        true => None,
        // Without a schema, it is in that of its table, whatever the search path is.
        false if is_qualified => Some((reader.relation_name()?, reader.last_position())),
        false => Some((reader.identifier()?, reader.last_position())),
    };
    reader.expect_keyword(&["ON"])?;
    reader.keyword(&["ONLY"]);
    let table = reader.relation_name()?;
    let at = reader.last_position();
    let catalog = session.catalog();
    // An index is in the schema of its table.
    let (schema, _) = catalog.schemas().place_of(&table);
    if let Some((name, at)) = name.as_mut().filter(|_| is_qualified) {
        // The schema may have been dropped since a statement that is repeated.
        let place = match session.is_recovering {
            true => split_schema(name),
            false => Some(catalog.schemas().place_of(name)),
        };
        let (of, local) = place.unwrap_or((PUBLIC, name));
        if of != schema && !session.is_recovering {
            return Err(Error::invalid(format!("the index is in the schema \"{schema}\" of its table"))
                .hint("Leave the schema of the index out.")
                .at(at.clone()));
        }
        *name = local.to_string();
    }
    let mut tag = Tag::new("CREATE INDEX");
    let is_there = |name: &str| catalog.indexed(&name_in(schema, name)).is_some();
    if let Some((name, _)) = name.as_ref().filter(|(name, _)| lenient && is_there(name)) {
        tag.notices.push(format!("index \"{name}\" already exists, nothing was done"));
        return Ok(Planned { base: catalog.version, tag, change: None });
    }
    let object = catalog.get(&table).map_err(|error| error.at(at.clone()))?;
    let kind = if unique { IndexKind::Unique } else { IndexKind::Plain };
    let written = WrittenIndex::read(reader, name.clone(), kind)?;
    tag.notices.extend(written.notices.iter().cloned());
    reader.expect_end()?;
    if written.has_expressions {
        tag.notices.push(
            "no index was created: an index can't be over an expression; index a generated column instead"
                .into(),
        );
        return Ok(Planned { base: catalog.version, tag, change: None });
    }
    let Definition::Table { schema, .. } = &object.definition else {
        return without_effect(&catalog, object, unique, tag).map_err(|error| error.at(at));
    };
    let index = written.over(schema)?;
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    index.add_to(&mut fields);
    let schema: SchemaRef = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let at = name.map_or(at, |(_, at)| at);
    if !session.is_recovering {
        catalog.check_constraint_names(&table, &schema).map_err(|error| error.at(at))?;
    }
    let change = TableChange::of(object, schema.clone(), None, &statement(&index, &schema, &table))?;
    Ok(Planned { base: catalog.version, tag, change: Some(change.needing_rows(true)) })
}

/// Returns the statement that creates an index.
fn statement(index: &TableIndex, schema: &Schema, table: &str) -> String {
    let unique = if index.is_unique() { "UNIQUE " } else { "" };
    let columns = index.columns.iter().map(|place| quote_ident(schema.field(*place).name()));
    let columns = columns.collect::<Vec<_>>().join(", ");
    let nulls = if index.nulls_distinct { "" } else { " NULLS NOT DISTINCT" };
    // An index without a name has one that follows the table's.
    let name = match index.name.starts_with('.') {
        true => String::new(),
        false => format!("{} ", quote_ident(&index.name)),
    };
    format!("CREATE {unique}INDEX {name}ON {} ({columns}){nulls}", relation_ident(table))
}

/// Accepts an index of a relation that isn't a table: its rows are found by their key already, or all are read.
fn without_effect(catalog: &Catalog, object: &Object, unique: bool, mut tag: Tag) -> Result<Planned> {
    let (kind, name) = (object.definition.kind(), &object.name);
    if object.definition.schema().is_none() {
        return Err(Error::invalid(format!("{kind} \"{name}\" has no rows that an index would find")));
    }
    if unique {
        let error = format!("UNIQUE INDEX of {kind} \"{name}\"");
        return Err(Error::unsupported(error).hint("Only the rows of a table are checked."));
    }
    tag.notices.push(format!(
        "no index was created: reads of {kind} \"{name}\" find rows by its own key, see EXPLAIN SELECT"
    ));
    Ok(Planned { base: catalog.version, tag, change: None })
}

/// Returns the new definition of the table that has the index.
fn plan_drop(session: &Session, reader: &mut TokenReader<'_>) -> Result<Planned> {
    reader.keyword(&["CONCURRENTLY"]);
    let lenient = reader.keyword(&["IF", "EXISTS"]);
    let catalog = session.catalog();
    let name = index_name(&catalog, reader)?;
    let at = reader.last_position();
    if *reader.peek() == Token::Comma {
        return Err(Error::unsupported("DROP INDEX of several").at(at).hint("Drop one at a time."));
    }
    reader.one_of(&[&["CASCADE"], &["RESTRICT"]]);
    reader.expect_end()?;
    let mut tag = Tag::new("DROP INDEX");
    let Some(table) = catalog.indexed(&name) else {
        if lenient {
            tag.notices.push(format!("index \"{name}\" does not exist, nothing was done"));
            return Ok(Planned { base: catalog.version, tag, change: None });
        }
        return Err(missing(&catalog, &name).at(at));
    };
    let place = if session.is_recovering { split_schema(&name) } else { None };
    let (_, local) = place.unwrap_or_else(|| catalog.schemas().place_of(&name));
    let index = table.indexes().into_iter().find(|(known, _)| *known == local);
    let (_, index) = index.ok_or_else(|| Error::bug("the owner of an index has it"))?;
    if index.kind == IndexKind::Constraint {
        let error = format!("index \"{name}\" belongs to a UNIQUE constraint of table \"{}\"", table.name);
        let hint = format!("ALTER TABLE {} DROP CONSTRAINT {name}.", table.name);
        return Err(Error::invalid(error).at(at).hint(hint));
    }
    let schema = table.definition.schema().ok_or_else(|| Error::bug("a table has columns"))?;
    let fields = schema.fields().iter().map(|field| without_index(field, &index.name));
    let schema = Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone());
    // A table that never had the index has the same definition.
    let created = format!("; {}", statement(&index, &schema, &table.name));
    let change = match table.ddl.split_once(&created) {
        Some((before, after)) if after.is_empty() || after.starts_with(';') => {
            let ddl = format!("{before}{after}");
            let without = Object {
                name: table.name.clone(),
                ddl,
                reads: table.reads.clone(),
                definition: table.definition.clone(),
            };
            TableChange::of(&without, Arc::new(schema), None, "")?
        }
        _ => {
            TableChange::of(table, Arc::new(schema), None, &format!("DROP INDEX {}", relation_ident(&name)))?
        }
    };
    Ok(Planned { base: catalog.version, tag, change: Some(change) })
}
