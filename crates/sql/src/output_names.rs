//! Column names of a SELECT's result. If the query gives none, they are named as in PostgreSQL.
//!
//! The rules are those of PostgreSQL's FigureColname (parser/parse_target.c): the name of a column or
//! function, the type of a cast, `case`, `array`, `exists`, and else `?column?`. Stored columns, such as a
//! view's, have the planner's names instead, which distinguish each expression from every other.

use std::sync::Arc;

use arrow::datatypes::{Fields, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, DataType, Expr, ObjectName, Query as QueryTree, Select, SelectItem, SetExpr,
};

use crate::declared_types::with_declared;
use crate::dialect::{sql_json, xml};
use crate::hidden_columns::{fold, last_name};
use crate::planner::Query;

/// The key of a schema's metadata that holds the names. A separator that no name contains precedes each.
const SHOWN: &str = "millstream.shown";
const SEPARATOR: char = '\u{1f}';

/// The names that a query's text gives its columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutputNames {
    /// The names of the first columns; none where the planner's name is right.
    first: Vec<Option<String>>,
    /// The names of the last columns, if a `*` comes before them.
    last: Option<Vec<Option<String>>>,
}

impl Query {
    /// Returns the result's columns. Metadata holds the names shown to a reader, if they differ. The fields
    /// keep the names that distinguish each expression from every other, as in a view of the same query.
    pub fn output_schema(&self, schema: &SchemaRef) -> SchemaRef {
        let schema = &with_declared(schema, &self.declared);
        let names = self.names.of(schema.fields().len());
        if names.iter().all(Option::is_none) {
            return schema.clone();
        }
        let shown: String = schema
            .fields()
            .iter()
            .zip(names)
            .flat_map(|(field, name)| [SEPARATOR.to_string(), name.unwrap_or_else(|| field.name().clone())])
            .collect();
        let mut metadata = schema.metadata().clone();
        metadata.insert(SHOWN.to_string(), shown);
        Arc::new(schema.as_ref().clone().with_metadata(metadata))
    }
}

/// Returns a result's schema under its shown names. They need not be unique: `count`, `?column?`.
pub fn as_shown(schema: &SchemaRef) -> SchemaRef {
    let Some(shown) = schema.metadata().get(SHOWN) else { return schema.clone() };
    let names: Vec<&str> = shown.split(SEPARATOR).skip(1).collect();
    if names.len() != schema.fields().len() {
        return schema.clone();
    }
    let named = schema.fields().iter().zip(names);
    let named = named.map(|(field, name)| Arc::new(field.as_ref().clone().with_name(name)));
    Arc::new(Schema::new_with_metadata(named.collect::<Fields>(), schema.metadata().clone()))
}

impl OutputNames {
    /// Derives the names of a query's columns.
    pub(crate) fn new(query: &QueryTree) -> OutputNames {
        let Some(select) = first_select(&query.body) else { return OutputNames::default() };
        let is_wildcard =
            |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
        let named = |items: &[SelectItem]| items.iter().map(item_name).collect();
        let items = &select.projection;
        let mut wildcards = items.iter().enumerate().filter(|(_, item)| is_wildcard(item));
        match (wildcards.next(), wildcards.next()) {
            (None, _) => OutputNames { first: named(items), last: None },
            // Columns before and after a `*` are counted from either end.
            (Some((at, _)), None) => {
                OutputNames { first: named(&items[..at]), last: Some(named(&items[at + 1..])) }
            }
            _ => OutputNames::default(),
        }
    }

    /// Returns the names of `width` columns; none where the planner's name is right or the name is unknown.
    fn of(&self, width: usize) -> Vec<Option<String>> {
        let mut names = vec![None; width];
        if self.last.is_none() && self.first.len() != width {
            return names;
        }
        names.iter_mut().zip(&self.first).for_each(|(name, known)| name.clone_from(known));
        let last = self.last.iter().flatten().rev();
        names.iter_mut().rev().zip(last).for_each(|(name, known)| name.clone_from(known));
        names
    }
}

/// Returns the SELECT that names a query's columns.
fn first_select(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::SetOperation { left, .. } => first_select(left),
        SetExpr::Query(query) => first_select(&query.body),
        _ => None,
    }
}

fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) => Some(name_of(expr).unwrap_or_else(|| "?column?".into())),
        SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
        _ => None,
    }
}

/// Returns PostgreSQL's name for a column; none for `?column?`.
pub(crate) fn name_of(expr: &Expr) -> Option<String> {
    Some(match expr {
        Expr::Identifier(name) => folded(&name.value, name.quote_style.is_some()),
        Expr::CompoundIdentifier(names) => {
            let name = names.last()?;
            folded(&name.value, name.quote_style.is_some())
        }
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => return name_of(inner),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = |part: &AccessExpr| match part {
                AccessExpr::Dot(field) => name_of(field),
                AccessExpr::Subscript(_) => None,
            };
            return access_chain.iter().rev().find_map(field).or_else(|| name_of(root));
        }
        Expr::Function(function) => {
            let name = object_name(&function.name)?;
            if let Some(shown) = sql_json::shown_name(&name) {
                return Some(shown.into());
            }
            match xml::shown_name(&name) {
                Some(shown) => shown?.into(),
                None => name,
            }
        }
        Expr::Cast { expr, data_type, .. } => match name_of(expr) {
            Some(name) => name,
            None => type_name(data_type)?,
        },
        Expr::TypedString(typed) => type_name(&typed.data_type)?,
        Expr::Case { else_result, .. } => {
            else_result.as_ref().and_then(|expr| name_of(expr)).unwrap_or_else(|| "case".into())
        }
        Expr::Array(_) => "array".into(),
        Expr::Exists { .. } => "exists".into(),
        Expr::Extract { .. } => "extract".into(),
        Expr::Substring { .. } => "substring".into(),
        Expr::Trim { .. } => "btrim".into(),
        Expr::Position { .. } => "position".into(),
        Expr::Ceil { .. } => "ceil".into(),
        Expr::Floor { .. } => "floor".into(),
        Expr::Overlay { .. } => "overlay".into(),
        Expr::AtTimeZone { .. } => "timezone".into(),
        Expr::Interval(_) => "interval".into(),
        Expr::Subquery(query) => match first_select(&query.body)?.projection.first()? {
            SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
            SelectItem::UnnamedExpr(expr) => return name_of(expr),
            _ => return None,
        },
        _ => return None,
    })
}

fn folded(name: &str, quoted: bool) -> String {
    if quoted { name.into() } else { name.to_lowercase() }
}

fn object_name(name: &ObjectName) -> Option<String> {
    last_name(name).map(|name| name.to_lowercase())
}

/// Returns PostgreSQL's internal name of a type.
fn type_name(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::SmallInt(_) | DataType::Int2(_) | DataType::TinyInt(_) => "int2".into(),
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => "int4".into(),
        DataType::BigInt(_) | DataType::Int8(_) => "int8".into(),
        DataType::Real | DataType::Float4 => "float4".into(),
        DataType::Double(_) | DataType::DoublePrecision | DataType::Float8 | DataType::Float(_) => {
            "float8".into()
        }
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => "numeric".into(),
        DataType::Boolean | DataType::Bool => "bool".into(),
        DataType::Text | DataType::String(_) => "text".into(),
        DataType::Varchar(_) | DataType::CharacterVarying(_) => "varchar".into(),
        DataType::Bytea => "bytea".into(),
        DataType::Date => "date".into(),
        DataType::Time(..) => "time".into(),
        DataType::Timestamp(_, zone) if zone.to_string().contains("WITH TIME ZONE") => "timestamptz".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Interval { .. } => "interval".into(),
        DataType::Uuid => "uuid".into(),
        DataType::JSON => "json".into(),
        DataType::Array(
            ArrayElemTypeDef::SquareBracket(item, _)
            | ArrayElemTypeDef::AngleBracket(item)
            | ArrayElemTypeDef::Parenthesis(item),
        ) => return type_name(item),
        DataType::Custom(name, _) => return object_name(name),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;
    use crate::tokens::DIALECT;

    fn check(sql: &str, width: usize, expected: &[&str]) {
        let query = Parser::new(&DIALECT).try_with_sql(sql).unwrap().parse_query().unwrap();
        let found: Vec<String> = OutputNames::new(&query)
            .of(width)
            .into_iter()
            .map(|name| name.unwrap_or_else(|| "-".into()))
            .collect();
        assert_eq!(found, expected, "{sql}");
    }

    /// OutputNames as in PostgreSQL 15.
    #[test]
    fn columns_are_named_as_in_postgres() {
        check(
            "SELECT 1, 'x', a, t.b, a + 1, -a, NULL",
            7,
            &["?column?", "?column?", "a", "b", "?column?", "?column?", "?column?"],
        );
        check(
            "SELECT count(*), SUM(a), pg_catalog.version(), lower(trim(a))",
            4,
            &["count", "sum", "version", "lower"],
        );
        check(
            "SELECT a::TEXT, 1::INT, '1'::NUMERIC(3, 1), CAST(f(a) AS INT), DATE '2024-01-01', ARRAY[1]",
            6,
            &["a", "int4", "numeric", "f", "date", "array"],
        );
        check(
            "SELECT CASE WHEN a THEN 1 END, CASE WHEN a THEN 1 ELSE b END, EXISTS (SELECT 1), (SELECT max(a) FROM t)",
            4,
            &["case", "b", "exists", "max"],
        );
        check("SELECT count(*) AS n, *, 1 FROM t", 5, &["n", "-", "-", "-", "?column?"]);
        check("SELECT *, t.* FROM t", 4, &["-", "-", "-", "-"]);
        check("(SELECT max(a) FROM t) UNION SELECT 2", 1, &["max"]);
        check("VALUES (1)", 1, &["-"]);
    }
}
