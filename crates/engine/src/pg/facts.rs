//! One state of the catalog and of a session, as input for the tables and functions of PostgreSQL's catalog.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::ScalarUDF;
use millstream_delta::{default_of, generated_of};
use millstream_sql::functions::quote_ident;
use millstream_sql::{
    INFORMATION_SCHEMA, PG_CATALOG, PUBLIC, Relation, Relations, Result, RoutineCatalog, SYSTEM_SCHEMA,
    SearchPath, TokenReader, is_hidden,
};

use super::constraints::{self, ListedCheck, ListedIndex};
use super::layout::{self, Layout};
use super::{functions, pg_types as types, user_types};
use crate::catalog::{Catalog, Definition, Object, schema_key};
use crate::files::Files;
use crate::jobs::Jobs;
use crate::sequences::Sequences;
use crate::settings::Settings;
use crate::system;
use crate::variables::Variables;

/// The OID of the only role.
pub(super) const OWNER: i64 = 10;
/// The OID of the only database.
pub(super) const DATABASE: i64 = 5;
/// The OIDs of schemas.
pub(super) const NAMESPACES: [(i64, &str); 4] =
    [(11, PG_CATALOG), (2200, "public"), (13_207, INFORMATION_SCHEMA), (15_000, SYSTEM_SCHEMA)];
/// The first OID of the engine's own tables.
const FIRST_SYSTEM: i64 = 15_008;

/// The state known when a query is planned.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(super) catalog: Arc<Catalog>,
    pub(super) settings: Settings,
    pub(super) variables: Arc<Mutex<Variables>>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) sequences: Arc<Sequences>,
    relations: OnceLock<Vec<Listed>>,
    by_oid: OnceLock<BTreeMap<i64, usize>>,
}

/// A relation as these tables list it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) oid: i64,
    /// The OID of its schema.
    pub(super) namespace: i64,
    /// The name of its schema.
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) kind: char,
    pub(super) columns: Vec<ListedColumn>,
    /// Its indexes; that of the primary key comes first.
    pub(super) indexes: Vec<ListedIndex>,
    pub(super) checks: Vec<ListedCheck>,
    /// The object, if a statement created the relation.
    pub(super) object: Option<Arc<Object>>,
    /// Its description, if any.
    pub(super) doc: Option<String>,
}

/// A column of such a relation.
#[derive(Debug)]
pub(super) struct ListedColumn {
    pub(super) name: String,
    pub(super) type_oid: i64,
    pub(super) modifier: i64,
    pub(super) not_null: bool,
    /// The default, or the expression of a generated column.
    pub(super) default: Option<String>,
    pub(super) is_generated: bool,
    pub(super) doc: Option<String>,
}

/// The first OID of column defaults.
const FIRST_DEFAULT: i64 = 1 << 30;

/// The maximum number of columns of a table in PostgreSQL.
const COLUMNS_MAX: i64 = 1600;

impl Listed {
    /// Returns the OID of its row type.
    pub(super) fn row_type(&self) -> i64 {
        if self.namespace == 11 || self.namespace == 13_207 { 0 } else { self.oid + 1 }
    }

    /// Returns the OID of the array type of its rows.
    pub(super) fn array_type(&self) -> i64 {
        self.oid + 2
    }

    /// Returns the OID of the default of the column at this position. It lies above those of objects.
    pub(super) fn default(&self, place: usize) -> i64 {
        FIRST_DEFAULT + self.oid * COLUMNS_MAX + place as i64
    }

    /// Returns the OID of the rule that makes it a view.
    pub(super) fn rule(&self) -> i64 {
        self.oid + 5
    }

    /// Returns true if it is the object of this name.
    fn is_object(&self, name: &str) -> bool {
        self.object.as_ref().is_some_and(|object| *object.name == *name)
    }

    /// Returns true if no statement created it.
    pub(super) fn is_system(&self) -> bool {
        self.object.is_none()
    }

    /// Returns the text of its query, if it has one.
    pub(super) fn query(&self) -> Option<String> {
        query_of(&self.object.as_ref()?.ddl)
    }
}

/// Returns the text of the query in a CREATE … AS.
fn query_of(ddl: &str) -> Option<String> {
    let mut reader = TokenReader::new(ddl).ok()?;
    while !reader.is_end() {
        if reader.keyword(&["AS"]) {
            let query = &ddl[reader.rest_text()];
            return Some(format!(" {};", query.trim_end().trim_end_matches(';')));
        }
        if reader.clone().group().is_ok() {
            reader.group().ok()?;
        } else {
            reader.next();
        }
    }
    None
}

impl Facts {
    pub(crate) fn new(
        catalog: Arc<Catalog>,
        settings: Settings,
        variables: Arc<Mutex<Variables>>,
        (jobs, sequences): (Arc<Jobs>, Arc<Sequences>),
    ) -> Facts {
        Facts {
            catalog,
            settings,
            variables,
            jobs,
            sequences,
            relations: OnceLock::new(),
            by_oid: OnceLock::new(),
        }
    }

    /// Returns the current settings of the session.
    pub(super) fn variables(&self) -> Variables {
        self.variables.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns all relations: users', the engine's, PostgreSQL's.
    pub(super) fn relations(&self) -> &[Listed] {
        self.relations.get_or_init(|| {
            let users = self.catalog.objects().filter_map(|object| listed(&self.catalog, object));
            let engine = system::TABLES.iter().enumerate().map(system_table);
            users.chain(engine).chain(layout::all().map(catalog_table)).collect()
        })
    }

    /// Returns the relation with this OID.
    pub(super) fn relation(&self, oid: i64) -> Option<&Listed> {
        let numbers = self.by_oid.get_or_init(|| {
            let relations = self.relations().iter().enumerate();
            relations.map(|(place, relation)| (relation.oid, place)).collect()
        });
        numbers.get(&oid).map(|place| &self.relations()[*place])
    }

    /// Returns the relation of this name in SQL's spelling, `public."T"`, looked up as in a query.
    pub(super) fn relation_named(&self, written: &str) -> Option<&Listed> {
        let (schema, name) = split_name(written)?;
        let found = |namespace: &str| {
            self.relations().iter().find(|relation| relation.schema == namespace && relation.name == name)
        };
        match schema {
            Some(schema) => found(&schema),
            None => found(PG_CATALOG).or_else(|| {
                let full = SearchPath::find(self.catalog.as_ref(), &name).unwrap_or_else(|| name.clone());
                self.relations().iter().find(|relation| relation.is_object(&full))
            }),
        }
    }

    /// Returns true if a name without a schema stands for this relation.
    pub(super) fn is_visible(&self, relation: &Listed) -> bool {
        if relation.namespace == 11 {
            return true;
        }
        let full = SearchPath::find(self.catalog.as_ref(), &relation.name);
        relation.is_object(full.as_deref().unwrap_or(&relation.name))
    }

    /// Returns the OIDs and names of all schemas.
    pub(super) fn namespaces(&self) -> Vec<(i64, String)> {
        let own = NAMESPACES.iter().map(|(oid, name)| (*oid, (*name).to_string()));
        let created = self.catalog.schemas().created();
        own.chain(created.map(|name| (self.catalog.oid(&schema_key(name)), name.to_string()))).collect()
    }

    /// Returns the OID of a schema.
    pub(super) fn namespace_oid(&self, name: &str) -> Option<i64> {
        self.namespaces().into_iter().find(|(_, known)| known == name).map(|(oid, _)| oid)
    }

    /// Returns a relation's name as a query has to spell it.
    pub(super) fn name_of(&self, relation: &Listed) -> String {
        let name = quote_ident(&relation.name);
        if self.is_visible(relation) { name } else { format!("{}.{name}", quote_ident(&relation.schema)) }
    }
}

/// Splits `a`, `s.a` or `"A"."b.c"` into the schema, if there is one, and the name, both folded.
pub(super) fn split_name(written: &str) -> Option<(Option<String>, String)> {
    let mut reader = TokenReader::new(written).ok()?;
    let first = reader.identifier().ok()?;
    if reader.is_end() {
        return Some((None, first));
    }
    reader.next();
    let second = reader.identifier().ok()?;
    reader.is_end().then_some((Some(first), second))
}

fn system_namespace(name: &str) -> Option<i64> {
    NAMESPACES.iter().find(|(_, known)| *known == name).map(|(oid, _)| *oid)
}

/// Returns the kind of relation that PostgreSQL's clients see, or `None` if the object can't be read.
pub(super) fn kind_of(definition: &Definition) -> Option<char> {
    match definition {
        Definition::Table { .. } | Definition::Source { table: Some(_), .. } => Some('r'),
        Definition::View { .. } => Some('v'),
        Definition::MaterializedView { .. } | Definition::Stream { .. } => Some('m'),
        Definition::Source { .. } => Some('f'),
        Definition::Sequence(_) => Some('S'),
        Definition::Sink { .. }
        | Definition::SinkInto { .. }
        | Definition::Subscription { .. }
        | Definition::Function(_)
        | Definition::Aggregate(_)
        | Definition::Schema
        | Definition::Type(_) => None,
    }
}

fn listed(catalog: &Catalog, object: &Arc<Object>) -> Option<Listed> {
    let kind = kind_of(&object.definition)?;
    let schema = object.definition.schema()?;
    let key = match &object.definition {
        Definition::Table { key, .. } => key.clone(),
        Definition::Source { spec, table: Some(_), .. } => spec.key.clone(),
        _ => Vec::new(),
    };
    let oid = catalog.oid(&object.name);
    let mut columns = columns(schema);
    let visible = schema.fields().iter().filter(|field| !is_hidden(field));
    for (column, field) in columns.iter_mut().zip(visible) {
        if let Some(oid) = user_types::oid_of(catalog, field) {
            column.type_oid = oid;
        }
        column.doc = catalog.comment(&object.name, Some(&column.name)).map(str::to_string);
    }
    let (namespace, name) = catalog.schemas().place_of(&object.name);
    let number = if namespace == PUBLIC { 2200 } else { catalog.oid(&schema_key(namespace)) };
    Some(Listed {
        oid,
        namespace: number,
        schema: namespace.into(),
        name: name.into(),
        kind,
        columns,
        indexes: constraints::indexes(oid, name, schema, &key),
        checks: constraints::checks(oid, name, schema),
        object: Some(object.clone()),
        doc: catalog.comment(&object.name, None).map(str::to_string),
    })
}

fn columns(schema: &Schema) -> Vec<ListedColumn> {
    let visible = schema.fields().iter().filter(|field| !is_hidden(field));
    visible.map(|field| column(field)).collect()
}

fn column(field: &Field) -> ListedColumn {
    let (type_oid, modifier) = types::type_of(field);
    ListedColumn {
        name: field.name().clone(),
        type_oid,
        modifier,
        not_null: !field.is_nullable(),
        default: default_of(field).or_else(|| generated_of(field)).map(str::to_string),
        is_generated: generated_of(field).is_some(),
        doc: None,
    }
}

fn system_table((place, table): (usize, &'static system::SystemTableDoc)) -> Listed {
    let schema = table.schema();
    let mut columns = columns(&schema);
    columns.iter_mut().zip(table.columns).for_each(|(column, doc)| column.doc = Some(doc.doc.to_string()));
    Listed {
        oid: FIRST_SYSTEM + 8 * place as i64,
        namespace: 15_000,
        schema: SYSTEM_SCHEMA.into(),
        name: table.name.into(),
        kind: 'v',
        columns,
        indexes: Vec::new(),
        checks: Vec::new(),
        object: None,
        doc: Some(table.doc.to_string()),
    }
}

fn catalog_table(layout: &'static Layout) -> Listed {
    let column = |column: &layout::LayoutColumn| ListedColumn {
        name: column.name.into(),
        type_oid: types::named(column.type_name).map_or(25, |known| known.oid),
        modifier: -1,
        default: None,
        is_generated: false,
        not_null: column.not_null,
        doc: None,
    };
    Listed {
        oid: layout.oid,
        namespace: system_namespace(layout.namespace).unwrap_or(11),
        schema: layout.namespace.into(),
        name: layout.name.into(),
        kind: layout.kind,
        columns: layout.columns.iter().map(column).collect(),
        indexes: Vec::new(),
        checks: Vec::new(),
        object: None,
        doc: None,
    }
}

/// The names that a one-time SELECT may use: everything in the catalog, and the functions over it.
pub(crate) struct OneShot {
    facts: Arc<Facts>,
    files: Files,
}

impl OneShot {
    pub(crate) fn new(facts: Facts, files: Files) -> OneShot {
        OneShot { facts: Arc::new(facts), files }
    }

    /// Returns the state that its tables are computed from.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl Relations for OneShot {
    fn get(&self, name: &str) -> Option<Relation> {
        Relations::get(self.facts.catalog.as_ref(), name)
    }

    fn names(&self, schema: Option<&str>) -> Vec<String> {
        self.facts.catalog.names(schema)
    }

    fn path(&self) -> Option<&dyn SearchPath> {
        self.facts.catalog.path()
    }

    fn event_time(&self, name: &str) -> Option<usize> {
        self.facts.catalog.event_time(name)
    }

    fn system(&self, schema: &str, name: &str) -> Option<Relation> {
        self.facts.catalog.system(schema, name)
    }

    fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        functions::scalar(name, &self.facts)
    }

    fn function(&self, name: &str, arguments: &[String]) -> Result<Option<Relation>> {
        match self.files.relation(name, arguments)? {
            Some(files) => Ok(Some(files)),
            None => self.facts.catalog.function(name, arguments),
        }
    }

    fn routine_catalog(&self) -> &dyn RoutineCatalog {
        self.facts.catalog.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_queries_read_them() {
        let check = |written: &str, schema: Option<&str>, name: &str| {
            let expected = Some((schema.map(str::to_string), name.to_string()));
            assert_eq!(split_name(written), expected, "{written}");
        };
        check("Orders", None, "orders");
        check("\"Orders\"", None, "Orders");
        check("public.\"a.b\"", Some("public"), "a.b");
        assert_eq!(split_name(""), None);
        assert_eq!(split_name("1"), None);
    }

    #[test]
    fn the_query_of_a_view_is_what_stands_behind_as() {
        let check = |ddl: &str, query: &str| assert_eq!(query_of(ddl).as_deref(), Some(query));
        check("CREATE VIEW v AS SELECT 1 AS a", " SELECT 1 AS a;");
        check("CREATE MATERIALIZED VIEW v (a) WITH (x = 'AS') AS SELECT 1", " SELECT 1;");
        assert_eq!(query_of("CREATE TABLE t (a INT)"), None);
    }
}
