//! Renaming of objects. Everything that reads a renamed object continues to do so.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use millstream_delta::{default_of, with_default};
use millstream_flow::Called;
use millstream_sql::{
    BatchQuery, Error, Result, TokenReader, qualified_ident, relation_ident, rename_relations, statements,
};

use super::schemas::schema_of_key;
use super::{AS_OF, Catalog, Definition, Object, Runs, as_of, bad_rows_of, late_rows_of, watermark_of};
use crate::sequences::with_renamed_sequence;
use crate::statements::{STATEMENTS, own_relation};

impl Catalog {
    /// Renames an object; the new name must be free. Replaces dependent objects by copies whose plans have
    /// the new name.
    pub(crate) fn rename(&mut self, from: &str, to: &Arc<str>) -> Result<()> {
        let before = self.get(from)?.clone();
        if let Some(taken) = self.find(to) {
            return Err(Error::invalid(format!("{} \"{to}\" already exists", taken.definition.kind()))
                .hint("Drop it first, or choose another name."));
        }
        // Include indirect readers, since views are part of their readers' plans.
        let dependants = self.dependants(from);
        let owns = |object: &Object| matches!(&object.definition, Definition::Sequence(options) if options.is_owned_by(from));
        let reads =
            |object: &&Arc<Object>| object.names(from) || dependants.contains(&object.name) || owns(object);
        let readers = self.objects.values().filter(reads);
        let readers: Vec<Object> = readers.map(|object| object.reading(from, to)).collect::<Result<_>>()?;
        let mut after = before.reading(from, to)?;
        after.ddl = with_name(&before.ddl, to)?;
        after.name = to.clone();
        // It may have moved to another schema.
        after.reads.retain(|read| schema_of_key(read).is_none());
        after.reads.extend(self.schemas().read_of(to));
        self.version += 1;
        self.objects.remove(from);
        for object in readers.into_iter().filter(|object| object.name != before.name) {
            self.objects.insert(object.name.clone(), Arc::new(object));
        }
        self.objects.insert(to.clone(), Arc::new(after));
        move_key(&mut self.oids, from, to);
        move_key(&mut self.late, from, to);
        move_key(&mut self.called, from, to);
        self.move_comments(from, to);
        let made_as = self.made_as.remove(from).unwrap_or_else(|| before.name.clone());
        self.made_as.insert(to.clone(), made_as);
        Ok(())
    }

    /// Returns the handle to an object's name, for operators that use its watermark.
    pub(crate) fn called(&self, name: &str) -> Called {
        self.called.get(name).cloned().unwrap_or_else(|| Called::new(name.into()))
    }

    /// Returns the objects that were created under a name and renamed since.
    pub(crate) fn made_as(&self, name: &str) -> impl Iterator<Item = &Arc<Object>> {
        let then = self.made_as.iter().filter(move |(_, made_as)| made_as.as_ref() == name);
        then.filter_map(|(now, _)| self.objects.get(now))
    }

    /// Returns the sink that has this name in its external system but was renamed here.
    pub(crate) fn sink_outside(&self, name: &str) -> Option<&Arc<Object>> {
        let outside = |object: &&Arc<Object>| match &object.definition {
            Definition::Sink { spec, .. } => spec.name == name && object.name.as_ref() != name,
            _ => false,
        };
        self.objects.values().find(outside)
    }
}

/// Moves the value under one key of a map to another key.
pub(crate) fn move_key<T>(map: &mut BTreeMap<Arc<str>, T>, from: &str, to: &Arc<str>) {
    if let Some(value) = map.remove(from) {
        map.insert(to.clone(), value);
    }
}

impl Object {
    /// Returns true if the object has this name or refers to it.
    fn names(&self, name: &str) -> bool {
        let has = |read: &Arc<str>| in_call(read, name, &name.into()).is_some();
        self.name.as_ref() == name || self.reads.iter().any(has)
    }

    /// Returns a copy in which a name is replaced; it may be the object's own.
    fn reading(&self, from: &str, to: &Arc<str>) -> Result<Object> {
        let rename = |name: &str| in_call(name, from, to);
        let reads = self.reads.iter().map(|read| rename(read).map_or_else(|| read.clone(), Into::into));
        let mut definition = self.definition.clone();
        definition.rename(from, to, &rename)?;
        let ddl = match definition {
            Definition::Table { .. } => with_renamed_sequence(&self.ddl, from, to),
            _ => None,
        };
        let ddl = ddl.unwrap_or_else(|| self.ddl.clone());
        Ok(Object { name: self.name.clone(), ddl, reads: reads.collect(), definition })
    }
}

impl Definition {
    fn rename(&mut self, from: &str, to: &Arc<str>, rename: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        let name = |name: &mut Arc<str>| {
            if name.as_ref() == from {
                *name = to.clone();
            }
        };
        match self {
            Definition::View { raw: plan, .. } | Definition::MaterializedView { plan, .. } => {
                *plan = rename_relations(plan, rename)?;
            }
            Definition::Stream { query, .. } => query.rename(rename)?,
            Definition::Sink { from: relation, query, .. } => {
                name(relation);
                if *relation == own_relation(from) {
                    *relation = own_relation(to);
                }
                if let Some(query) = query {
                    query.rename(rename)?;
                }
            }
            Definition::SinkInto { table, query } => {
                name(table);
                *query = rename_relations(query, rename)?;
            }
            Definition::Subscription { from: relation, .. } => name(relation),
            Definition::Table { schema, .. } => {
                if let Some(renamed) = with_renamed_defaults(schema, from, to) {
                    *schema = renamed;
                }
            }
            Definition::Sequence(options) => {
                if let Some((table, _)) = options.owned_by.as_mut().filter(|(table, _)| table == from) {
                    *table = to.to_string();
                }
            }
            Definition::Source { .. }
            | Definition::Function(_)
            | Definition::Aggregate(_)
            | Definition::Schema
            | Definition::Type(_) => {}
        }
        Ok(())
    }
}

/// Returns a table's columns after a sequence was renamed; none if no default calls it.
fn with_renamed_defaults(schema: &SchemaRef, from: &str, to: &str) -> Option<SchemaRef> {
    let mut is_renamed = false;
    let renamed = |field: &Field| with_renamed_sequence(default_of(field)?, from, to);
    let field = |field: &Arc<Field>| match renamed(field) {
        Some(default) => {
            is_renamed = true;
            Arc::new(with_default(field.as_ref().clone(), Some(&default)))
        }
        None => field.clone(),
    };
    let fields: Vec<Arc<Field>> = schema.fields().iter().map(field).collect();
    is_renamed.then(|| Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
}

impl Runs {
    fn rename(&mut self, rename: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        match self {
            Runs::Maintained { plan, .. } => *plan = rename_relations(plan, rename)?,
            Runs::EachBatch(query) => **query = BatchQuery::rename_relations(query, rename)?,
        }
        Ok(())
    }
}

/// Returns a relation's name, or a call with it as argument, with the new name. Returns `None` if the name
/// does not occur.
fn in_call(name: &str, from: &str, to: &Arc<str>) -> Option<String> {
    let called = |function: &str| Some(format!("{function}('{to}')"));
    if name == from {
        return Some(to.to_string());
    }
    if bad_rows_of(name) == Some(from) {
        return called("bad_rows");
    }
    if late_rows_of(name) == Some(from) {
        return called("late_rows");
    }
    if watermark_of(name) == Some(from) {
        return called("watermark");
    }
    let (relation, _) = as_of(name)?;
    let rest = name.strip_prefix(AS_OF)?.strip_prefix("('")?.strip_prefix(&relation.replace('\'', "''"))?;
    (relation == from).then(|| format!("{AS_OF}('{}{rest}", to.replace('\'', "''")))
}

/// Returns an object's DDL, including later statements that altered it, with another name for the object.
pub(crate) fn with_name(ddl: &str, to: &str) -> Result<String> {
    with_ident(ddl, &relation_ident(to))
}

/// Does the same, with the schema `public`, too, so that the statement means this object on any search path.
pub(crate) fn with_qualified_name(ddl: &str, to: &str) -> Result<String> {
    with_ident(ddl, &qualified_ident(to))
}

fn with_ident(ddl: &str, to: &str) -> Result<String> {
    let statements = statements(ddl)?;
    let named = statements.iter().map(|statement| named(&statement.text, to));
    Ok(named.collect::<Result<Vec<_>>>()?.join("; "))
}

fn named(statement: &str, to: &str) -> Result<String> {
    let mut reader = TokenReader::new(statement)?;
    if reader.is_keyword(&["DROP", "INDEX"]) {
        return Ok(statement.to_string());
    }
    if reader.is_keyword(&["CREATE", "INDEX"]) || reader.is_keyword(&["CREATE", "UNIQUE", "INDEX"]) {
        while !reader.is_end() && !reader.keyword(&["ON"]) {
            reader.next();
        }
        let start = reader.position().start;
        reader.relation_name()?;
        let end = reader.last_position().end;
        return Ok(format!("{}{}{}", &statement[..start], to, &statement[end..]));
    }
    if reader.keyword(&["CREATE"]) {
        reader.keyword(&["OR", "REPLACE"]);
    } else {
        reader.expect_keyword(&["ALTER"])?;
    }
    reader.one_of(&STATEMENTS.kinds()).ok_or_else(|| reader.expected("what a statement makes"))?;
    reader.keyword(&["IF", "NOT", "EXISTS"]);
    let start = reader.position().start;
    reader.relation_name()?;
    let end = reader.last_position().end;
    Ok(format!("{}{}{}", &statement[..start], to, &statement[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_makes_the_same_under_another_name() {
        let check = |ddl: &str, to: &str, expected: &str| {
            assert_eq!(with_name(ddl, to).unwrap(), expected);
        };
        check("CREATE TABLE t (t INT)", "u", "CREATE TABLE u (t INT)");
        check(
            "create  table if not exists public.\"T\" (t INT)",
            "u",
            "create  table if not exists u (t INT)",
        );
        check(
            "CREATE MATERIALIZED VIEW m AS SELECT 1 FROM m",
            "M",
            "CREATE MATERIALIZED VIEW \"M\" AS SELECT 1 FROM m",
        );
        check(
            "CREATE TABLE t (ts TIMESTAMP); ALTER TABLE t DROP WATERMARK",
            "u",
            "CREATE TABLE u (ts TIMESTAMP); ALTER TABLE u DROP WATERMARK",
        );
        check(
            "CREATE TABLE t (a TEXT DEFAULT '; ALTER x'); CREATE UNIQUE INDEX i ON t (a); DROP INDEX i",
            "u",
            "CREATE TABLE u (a TEXT DEFAULT '; ALTER x'); CREATE UNIQUE INDEX i ON u (a); DROP INDEX i",
        );
        check("CREATE VIEW v AS SELECT '; ALTER TABLE v'", "w", "CREATE VIEW w AS SELECT '; ALTER TABLE v'");
    }

    #[test]
    fn calls_name_relations() {
        let now = |name: &str| in_call(name, "t", &"u".into());
        assert_eq!(now("t").as_deref(), Some("u"));
        assert_eq!(now("bad_rows('t')").as_deref(), Some("bad_rows('u')"));
        assert_eq!(now("watermark('t')").as_deref(), Some("watermark('u')"));
        let of = |name: &str| format!("{AS_OF}('{name}', 'epoch', '3')");
        assert_eq!(now(&of("t")), Some(of("u")));
        assert_eq!(now(&of("tt")), None);
        assert_eq!(now("tt"), None);
    }
}
