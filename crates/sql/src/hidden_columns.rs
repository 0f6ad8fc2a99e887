//! Columns that are not in `*` but can be named, such as `_file`.
//!
//! A field's metadata marks a hidden column ([`hide_field`]). A query that names none is planned against
//! schemas without them. If a query names some, those are ordinary columns of every relation that has them.
//! Its wildcards leave them out: `SELECT *` over a source becomes `SELECT * EXCLUDE (_file)`.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, TableFactor, TableWithJoins, VisitorMut, WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::ast_walk::walk_mut;
use crate::error::{Error, Result};
use crate::event_time;
use crate::relation::{PG_CATALOG, Relation, Relations, catalog_name};
use crate::tokens::Lexeme;

/// The key in a field's metadata that hides the column; its value is `true`.
pub const HIDDEN: &str = "millstream.hidden";

/// Returns the same field, hidden from `*`.
pub fn hide_field(field: Field) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(HIDDEN.into(), "true".into());
    field.with_metadata(metadata)
}

/// True if a column is hidden from `*`.
pub fn is_hidden(field: &Field) -> bool {
    field.metadata().get(HIDDEN).is_some_and(|value| value == "true")
}

/// Returns the same field as an ordinary column.
fn reveal(field: &Field) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.remove(HIDDEN);
    field.clone().with_metadata(metadata)
}

/// Returns the columns of a relation as a query sees them that names these hidden ones.
pub(crate) fn visible_schema(schema: &SchemaRef, names: &[String]) -> SchemaRef {
    if !schema.fields().iter().any(|field| is_hidden(field)) {
        return Arc::clone(schema);
    }
    let fields = schema.fields().iter().filter(|field| !is_hidden(field) || names.contains(field.name()));
    let fields: Vec<Field> = fields.map(|field| reveal(field)).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Returns the names of the columns that `*` over a relation returns in a query that names these hidden ones.
pub(crate) fn visible_columns(relation: &Relation, names: &[String]) -> Vec<String> {
    let of = |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect();
    match relation {
        Relation::Rows { schema, .. } => of(&visible_schema(schema, names)),
        Relation::View(plan) => of(plan.schema().as_arrow()),
        Relation::Provided(provider) => of(&provider.schema()),
    }
}

/// Returns the hidden columns of any relation that these tokens name.
pub(crate) fn hidden_columns_named(lexemes: &[Lexeme], relations: &dyn Relations) -> Vec<String> {
    let mut words: HashSet<String> = HashSet::new();
    for lexeme in lexemes {
        if let Token::Word(word) = &lexeme.token.token {
            words.insert(if word.quote_style.is_some() {
                word.value.clone()
            } else {
                word.value.to_lowercase()
            });
        }
    }
    let mut found: Vec<String> = Vec::new();
    for word in &words {
        let of_postgres = || relations.system(PG_CATALOG, word).filter(|_| word.starts_with("pg_"));
        if let Some(Relation::Rows { schema, .. }) = relations.get(word).or_else(of_postgres) {
            let named =
                schema.fields().iter().filter(|field| is_hidden(field) && words.contains(field.name()));
            found.extend(named.map(|field| field.name().clone()));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Excludes the shown hidden columns from every wildcard over a relation that has them.
pub(crate) fn narrow_wildcards(query: &mut Query, shown: &[String], relations: &dyn Relations) -> Result<()> {
    if shown.is_empty() {
        return Ok(());
    }
    let mut visitor = Narrow { shown, relations, names: Vec::new() };
    match walk_mut(query, &mut visitor) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Narrow<'a> {
    shown: &'a [String],
    relations: &'a dyn Relations,
    /// The names of WITH queries by nesting level. They take precedence over relations.
    names: Vec<Vec<String>>,
}

impl VisitorMut for Narrow<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.names.push(tables.map(|table| fold(&table.alias.name)).collect());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.names.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        match self.narrow(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// A table of a FROM clause: the name it goes by, and the hidden columns it shows.
struct Factor {
    name: ObjectName,
    alias: String,
    shown: Vec<String>,
}

impl Narrow<'_> {
    fn narrow(&self, select: &mut Select) -> Result<()> {
        let factors = self.factors(&select.from)?;
        if factors.iter().all(|factor| factor.shown.is_empty()) {
            return Ok(());
        }
        let merged = select.from.iter().flat_map(|from| &from.joins).any(|join| {
            matches!(
                constraint(&join.join_operator),
                Some(JoinConstraint::Using(_) | JoinConstraint::Natural)
            )
        });
        let mut items = Vec::with_capacity(select.projection.len());
        for item in std::mem::take(&mut select.projection) {
            match item {
                SelectItem::Wildcard(options) if merged || factors.len() == 1 => {
                    let hidden: Vec<String> =
                        factors.iter().flat_map(|factor| factor.shown.clone()).collect();
                    items.push(SelectItem::Wildcard(exclude(options, &hidden)));
                }
                SelectItem::Wildcard(options) => items.extend(factors.iter().map(|factor| {
                    let kind = SelectItemQualifiedWildcardKind::ObjectName(factor.name.clone());
                    SelectItem::QualifiedWildcard(kind, exclude(options.clone(), &factor.shown))
                })),
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    let wanted = last_name(&name);
                    let factor = factors.iter().find(|factor| Some(&factor.alias) == wanted.as_ref());
                    let options = factor.map_or(options.clone(), |factor| exclude(options, &factor.shown));
                    items.push(SelectItem::QualifiedWildcard(
                        SelectItemQualifiedWildcardKind::ObjectName(name),
                        options,
                    ));
                }
                other => items.push(other),
            }
        }
        select.projection = items;
        Ok(())
    }

    fn factors(&self, from: &[TableWithJoins]) -> Result<Vec<Factor>> {
        let mut factors = Vec::new();
        for table in from {
            self.factor(&table.relation, &mut factors)?;
            for join in &table.joins {
                self.factor(&join.relation, &mut factors)?;
                let natural = matches!(constraint(&join.join_operator), Some(JoinConstraint::Natural));
                if natural && factors.iter().any(|factor| !factor.shown.is_empty()) {
                    let names = self.shown.join(", ");
                    return Err(Error::invalid(format!("NATURAL JOIN in a query that names {names}"))
                        .hint("Name the columns that must be equal: JOIN … USING (…)."));
                }
            }
        }
        Ok(factors)
    }

    fn factor(&self, factor: &TableFactor, factors: &mut Vec<Factor>) -> Result<()> {
        let windowed;
        let (name, alias) = match factor {
            TableFactor::Table { name, alias, args, .. } => {
                windowed = args.as_ref().and_then(|args| event_time::windowed(name, args));
                (Some(windowed.as_ref().unwrap_or(name)), alias.as_ref())
            }
            TableFactor::Derived { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::TableFunction { alias, .. } => (None, alias.as_ref()),
            TableFactor::NestedJoin { table_with_joins, .. } => {
                factors.extend(self.factors(std::slice::from_ref(table_with_joins.as_ref()))?);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let shown = name.map_or(Vec::new(), |name| self.shown_of(name));
        let name = match (alias, name) {
            (Some(alias), _) => ObjectName::from(vec![alias.name.clone()]),
            (None, Some(name)) => name.clone(),
            (None, None) => return Ok(()),
        };
        let alias = last_name(&name).unwrap_or_default();
        factors.push(Factor { name, alias, shown });
        Ok(())
    }

    fn shown_of(&self, name: &ObjectName) -> Vec<String> {
        let Some(last) = last_name(name) else { return Vec::new() };
        if name.0.len() == 1 && self.names.iter().flatten().any(|other| *other == last) {
            return Vec::new();
        }
        let name = catalog_name(name, self.relations).unwrap_or(last);
        match self.relations.get(&name) {
            Some(Relation::Rows { schema, .. }) => {
                let hidden = schema.fields().iter().filter(|f| is_hidden(f) && self.shown.contains(f.name()));
                hidden.map(|field| field.name().clone()).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Returns the options of a wildcard without these columns.
pub(crate) fn exclude(
    mut options: WildcardAdditionalOptions,
    hidden: &[String],
) -> WildcardAdditionalOptions {
    if hidden.is_empty() {
        return options;
    }
    let mut names: Vec<ObjectName> = match options.opt_exclude.take() {
        Some(ExcludeSelectItem::Single(name)) => vec![name],
        Some(ExcludeSelectItem::Multiple(names)) => names,
        None => Vec::new(),
    };
    names.extend(hidden.iter().map(|name| ObjectName::from(vec![Ident::new(name)])));
    options.opt_exclude = Some(ExcludeSelectItem::Multiple(names));
    options
}

fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    match operator {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c)
        | JoinOperator::Right(c)
        | JoinOperator::RightOuter(c)
        | JoinOperator::FullOuter(c)
        | JoinOperator::AsOf { constraint: c, .. } => Some(c),
        _ => None,
    }
}

/// Returns a name as the planner folds it.
pub(crate) fn fold(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// Returns the last part of a dotted name, folded.
pub(crate) fn last_name(name: &ObjectName) -> Option<String> {
    name.0.last().and_then(|part| part.as_ident()).map(fold)
}
