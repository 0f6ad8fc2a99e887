//! The types of CREATE TYPE and CREATE DOMAIN.
//!
//! A column has the labels of its enum type in its declared type, and the constraints of its domain as its own. So a table and
//! a plan don't depend on this list, which is for names in statements alone. A name without a schema is one of `public`, or else
//! of the only schema that has it.
//!
//! | written | planned as |
//! | --- | --- |
//! | `x::mood` | the function that reads a value of this type |
//! | `x::address`, a composite type | `x::STRUCT<city TEXT, zip INT>` |
//! | `x::email`, for a domain over TEXT with `CHECK (VALUE LIKE '%@%')` | `x::TEXT`, or an error if the condition is false |

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{PoisonError, RwLock};

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, CaseWhen, CastKind, DataType as SqlType, Expr, Ident, ObjectName, Statement,
    TypedString, Value, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Word};
use millstream_delta::enum_type;

use crate::ast_rewrite::call;
use crate::ast_walk::{walk, walk_mut};
use crate::complexity::Size;
use crate::dialect::postgres_forms;
use crate::error::{Error, Result};
use crate::functions::marks::enum_type::{EnumType, RESOLVED};
use crate::functions::quote_ident;
use crate::reader::TokenReader;
use crate::relation::{name_in, relation_ident, split_schema};
use crate::sqlstate;
use crate::tokens::DIALECT;

/// The most domains over one another.
const DEPTH_MAX: usize = 16;

/// The most fields of a composite type, with those of its fields: as many as the columns of a relation in PostgreSQL.
const FIELDS_MAX: usize = 1_600;

/// A user-defined type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserType {
    /// The labels of an enum, in their order.
    Enum(Vec<String>),
    /// A type with constraints.
    Domain(Domain),
    /// The type of a composite type's values: `STRUCT<a INT, b TEXT>`.
    Composite(String),
}

/// A type with constraints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domain {
    /// The type of its values, as written.
    pub base: String,
    /// The default of its columns.
    pub default: Option<String>,
    /// True if it has no NULL.
    pub not_null: bool,
    /// The names of its constraints, if they have any, and their conditions over VALUE.
    pub checks: Vec<(Option<String>, String)>,
}

impl Domain {
    /// Returns the type and the constraints of a column, as CREATE TABLE takes them.
    pub fn column(&self, name: &str, has_default: bool) -> Result<String> {
        let mut text = self.base.clone();
        if let Some(default) = self.default.as_ref().filter(|_| !has_default) {
            text.push_str(&format!(" DEFAULT {default}"));
        }
        if self.not_null {
            text.push_str(" NOT NULL");
        }
        for (_, condition) in &self.checks {
            text.push_str(&format!(" CHECK ({})", over(condition, &quote_ident(name))?));
        }
        Ok(text)
    }
}

/// Returns a condition over VALUE as one over a column.
fn over(condition: &str, column: &str) -> Result<String> {
    let mut reader = TokenReader::new(condition)?;
    let (mut text, mut copied) = (String::new(), 0);
    while !reader.is_end() {
        let at = reader.position();
        if is_value(&reader.next()) {
            text.push_str(&condition[copied..at.start]);
            text.push_str(column);
            copied = at.end;
        }
    }
    text.push_str(&condition[copied..]);
    Ok(text)
}

fn is_value(token: &Token) -> bool {
    matches!(token, Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case("VALUE"))
}

/// The user-defined types of an engine, by their names in its catalog.
#[derive(Debug, Default)]
pub struct UserTypes(RwLock<BTreeMap<String, UserType>>);

impl UserTypes {
    /// Replaces all types.
    pub fn set(&self, all: BTreeMap<String, UserType>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// Adds or replaces a type.
    pub fn define(&self, name: &str, found: UserType) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_string(), found);
    }

    /// Returns the name in the catalog and the definition of a type, by its name with a schema or without one.
    fn find(&self, schema: Option<&str>, name: &str) -> Option<(String, UserType)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let key = match schema {
            Some(schema) => name_in(schema, name),
            None if all.contains_key(name) => name.to_string(),
            None => {
                let mut found =
                    all.keys().filter(|key| split_schema(key).is_some_and(|(_, found)| found == name));
                found.next().filter(|_| found.next().is_none())?.clone()
            }
        };
        all.get(&key).map(|found| (key, found.clone()))
    }

    fn named(&self, name: &ObjectName) -> Option<(String, UserType)> {
        let part = |ident: &Ident| match ident.quote_style {
            Some(_) => ident.value.clone(),
            None => ident.value.to_lowercase(),
        };
        let parts: Option<Vec<String>> = name.0.iter().map(|found| found.as_ident().map(part)).collect();
        match parts?.as_slice() {
            [name] => self.find(None, name),
            [schema, name] | [_, schema, name] => self.find(Some(schema), name),
            _ => None,
        }
    }

    /// Returns the domain that a text names.
    pub(crate) fn domain(&self, written: &str) -> Option<Domain> {
        match parsed_type(written).ok()? {
            SqlType::Custom(name, _) => match self.named(&name)? {
                (_, UserType::Domain(domain)) => Some(domain),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns the type that a statement's type stands for: that of a domain's values, or an enum by the function that reads it; none if
    /// it isn't user-defined.
    pub(crate) fn resolved(&self, written: &SqlType) -> Result<Option<SqlType>> {
        let mut found: Option<SqlType> = None;
        for _ in 0..DEPTH_MAX {
            match found.as_ref().unwrap_or(written) {
                SqlType::Array(
                    ArrayElemTypeDef::SquareBracket(item, _) | ArrayElemTypeDef::AngleBracket(item),
                ) => {
                    return match self.resolved(item)? {
                        None => Ok(found),
                        Some(composite @ SqlType::Struct(..)) if self.is_composite(item) => Ok(Some(
                            SqlType::Array(ArrayElemTypeDef::SquareBracket(Box::new(composite), None)),
                        )),
                        Some(_) => {
                            Err(Error::unsupported(format!("an array of the user-defined type {item}"))
                                .hint("Use TEXT[]."))
                        }
                    };
                }
                SqlType::Struct(fields, brackets) => {
                    let mut fields = fields.clone();
                    let mut is_resolved = false;
                    for field in &mut fields {
                        let Some(composite) = self.resolved(&field.field_type)? else { continue };
                        if !self.is_composite(&field.field_type) {
                            let of = &field.field_type;
                            return Err(Error::unsupported(format!("a field of the user-defined type {of}"))
                                .hint("Use TEXT, or the type of the domain."));
                        }
                        field.field_type = composite;
                        is_resolved = true;
                    }
                    let resolved = SqlType::Struct(fields, *brackets);
                    return Ok(if is_resolved { Some(resolved) } else { found });
                }
                SqlType::Custom(name, modifiers) if modifiers.is_empty() => match self.named(name) {
                    None => return Ok(found),
                    Some((name, UserType::Enum(labels))) => {
                        let declared = enum_type(&relation_ident(&name), &labels);
                        let of = declared.and_then(|declared| EnumType::spelled(&declared));
                        let of = of.ok_or_else(|| Error::bug("a label with a control character"))?;
                        return Ok(Some(SqlType::Custom(
                            ObjectName::from(vec![Ident::new(RESOLVED)]),
                            vec![of.read().to_string()],
                        )));
                    }
                    Some((_, UserType::Domain(domain))) => found = Some(parsed_type(&domain.base)?),
                    Some((_, UserType::Composite(fields))) => found = Some(parsed_type(&fields)?),
                },
                _ => return Ok(found),
            }
        }
        Err(Error::invalid(format!("{written} is a domain over more than {DEPTH_MAX} others")))
    }

    /// True for a composite type, and for an array of one.
    fn is_composite(&self, written: &SqlType) -> bool {
        match written {
            SqlType::Array(
                ArrayElemTypeDef::SquareBracket(item, _) | ArrayElemTypeDef::AngleBracket(item),
            ) => self.is_composite(item),
            SqlType::Custom(name, modifiers) if modifiers.is_empty() => {
                matches!(self.named(name), Some((_, UserType::Composite(_))))
            }
            SqlType::Struct(..) => true,
            _ => false,
        }
    }

    /// Returns a composite type with these fields: `a INT, b TEXT`. Fails if the type has too many.
    pub fn composite(&self, fields: &str) -> Result<UserType> {
        let spelled = format!("STRUCT<{fields}>");
        let parsed = parsed_type(&spelled).map_err(|_| {
            Error::invalid(format!("({fields}) are no fields of a composite type"))
                .hint("Write (a INT, b TEXT): names and types, without constraints.")
                .code(sqlstate::SYNTAX_ERROR)
        })?;
        let resolved = self.resolved(&parsed)?.unwrap_or(parsed);
        if fields_of(&resolved) > FIELDS_MAX {
            return Err(Error::invalid(format!(
                "a composite type has at most {FIELDS_MAX} fields, those of its fields included"
            ))
            .code(sqlstate::PROGRAM_LIMIT_EXCEEDED));
        }
        Ok(UserType::Composite(spelled))
    }

    /// Replaces the user-defined types of casts in a statement.
    pub(crate) fn resolve_in(&self, statement: &mut Statement) -> Result<()> {
        if self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Ok(());
        }
        match walk_mut(statement, &mut Casts { types: self, size: Size::default() }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// Returns a cast to a user-defined type by others; none if the type isn't user-defined. `size` is that of the statement.
    fn cast(
        &self,
        value: &Expr,
        data_type: &SqlType,
        kind: &CastKind,
        size: &mut Size,
    ) -> Result<Option<Expr>> {
        let Some(resolved) = self.resolved(data_type)? else { return Ok(None) };
        let cast = Expr::Cast {
            kind: kind.clone(),
            expr: Box::new(value.clone()),
            data_type: resolved,
            array: false,
            format: None,
        };
        let mut checked = cast.clone();
        let mut written = data_type.clone();
        while let SqlType::Custom(name, _) = &written
            && let Some((name, UserType::Domain(domain))) = self.named(name)
        {
            checked = domain.checked(&name, &cast, checked, size)?;
            written = parsed_type(&domain.base)?;
        }
        Ok(Some(checked))
    }
}

impl Domain {
    /// Returns a value, or an error if it violates a constraint of the domain.
    fn checked(&self, name: &str, cast: &Expr, value: Expr, size: &mut Size) -> Result<Expr> {
        let Expr::Cast { data_type, .. } = cast else { return Ok(value) };
        let mut value = value;
        // Each condition is written twice.
        let operand = Parts::of(cast).all;
        let mut conditions: Vec<(Expr, String)> = Vec::new();
        if self.not_null {
            size.copy(operand.saturating_mul(2))?;
            let condition = Expr::IsNotNull(Box::new(cast.clone()));
            conditions.push((condition, format!("domain {name} does not allow null values")));
        }
        for (constraint, condition) in &self.checks {
            let parser = Parser::new(&DIALECT).try_with_sql(condition);
            let mut condition = parser.and_then(|mut parser| parser.parse_expr()).map_err(wrong)?;
            let Parts { all, values } = Parts::of(&condition);
            size.copy(values.saturating_mul(operand).saturating_add(all).saturating_mul(2))?;
            let _ = walk_mut(&mut condition, &mut Values(cast));
            let condition = Expr::IsNotFalse(Box::new(Expr::Nested(Box::new(condition))));
            let constraint = constraint.clone().unwrap_or_else(|| format!("{name}_check"));
            let message = format!("value for domain {name} violates check constraint \"{constraint}\"");
            conditions.push((condition, message));
        }
        for (condition, message) in conditions {
            let message = Expr::value(Value::SingleQuotedString(message));
            let failed = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(call("assert_true", vec![condition.clone(), message])),
                data_type: data_type.clone(),
                array: false,
                format: None,
            };
            value = Expr::Case {
                case_token: AttachedToken::empty(),
                end_token: AttachedToken::empty(),
                operand: None,
                conditions: vec![CaseWhen { condition, result: value }],
                else_result: Some(Box::new(failed)),
            };
        }
        Ok(value)
    }
}

/// Returns the number of a type's fields, with those of its fields.
fn fields_of(data_type: &SqlType) -> usize {
    match data_type {
        SqlType::Struct(fields, _) => {
            fields.iter().map(|field| fields_of(&field.field_type).saturating_add(1)).sum()
        }
        SqlType::Array(ArrayElemTypeDef::SquareBracket(item, _) | ArrayElemTypeDef::AngleBracket(item)) => {
            fields_of(item)
        }
        _ => 0,
    }
}

fn parsed_type(text: &str) -> Result<SqlType> {
    let tokens = postgres_forms::rewrite(TokenReader::new(text)?.rest_tokens());
    let mut parser = Parser::new(&DIALECT).with_tokens_with_locations(tokens);
    let parsed = parser.parse_data_type().map_err(wrong)?;
    match parser.peek_token().token {
        Token::EOF => Ok(parsed),
        other => Err(Error::invalid(format!("syntax error at or near \"{other}\" in the type {text}"))),
    }
}

fn wrong(error: ParserError) -> Error {
    Error::invalid(error.to_string())
}

/// Replaces casts.
struct Casts<'a> {
    types: &'a UserTypes,
    /// The size of the statement so far, and what casts add to it.
    size: Size,
}

impl VisitorMut for Casts<'_> {
    type Break = Error;

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<Error> {
        let Casts { types, size } = self;
        size.written += 1;
        let found = match expression {
            Expr::Cast { expr, data_type, kind, array: false, .. } => types.cast(expr, data_type, kind, size),
            Expr::TypedString(TypedString { data_type, value, .. }) => {
                types.cast(&Expr::Value(value.clone()), data_type, &CastKind::Cast, size)
            }
            _ => return ControlFlow::Continue(()),
        };
        match found {
            Ok(found) => {
                found.into_iter().for_each(|found| *expression = found);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// The number of expressions in an expression, and how many of them are VALUE.
#[derive(Default)]
struct Parts {
    all: u64,
    values: u64,
}

impl Parts {
    fn of(expression: &Expr) -> Parts {
        let mut parts = Parts::default();
        let _ = walk(expression, &mut parts);
        parts
    }
}

impl Visitor for Parts {
    type Break = ();

    fn post_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        self.all += 1;
        self.values += u64::from(names_value(expression));
        ControlFlow::Continue(())
    }
}

fn names_value(expression: &Expr) -> bool {
    matches!(expression, Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("VALUE"))
}

/// Replaces VALUE by an expression.
struct Values<'a>(&'a Expr);

impl VisitorMut for Values<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        if names_value(expression) {
            *expression = self.0.clone();
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Tables;

    fn tables() -> Tables {
        let tables = Tables::new();
        let labels = ["sad", "ok", "happy"].map(String::from).to_vec();
        let types = tables.planner.types();
        types.define("mood", UserType::Enum(labels));
        types.define("s.mood", UserType::Enum(vec!["x".into()]));
        types.define("s.other", UserType::Enum(vec!["y".into()]));
        let checks = vec![(None, "VALUE > 0".into()), (Some("odd".into()), "value % 2 <> 0".into())];
        types.define("odd", UserType::Domain(Domain { base: "INT".into(), checks, ..Domain::default() }));
        let base = Domain { base: "odd".into(), not_null: true, ..Domain::default() };
        types.define("known", UserType::Domain(base));
        tables.table("t", "(m mood, n INT)", "VALUES ('ok', 1), ('happy', 2), ('sad', 3), (NULL, 4)")
    }

    #[test]
    fn enums_have_the_order_of_their_labels() {
        let tables = tables();
        tables.check("SELECT array_agg(n ORDER BY m NULLS FIRST) FROM t", &["[4, 3, 1, 2]"]);
        tables.check("SELECT min(m), max(m) FROM t", &["sad|happy"]);
        tables.check("SELECT n FROM t WHERE m BETWEEN 'ok' AND 'happy' ORDER BY n", &["1", "2"]);
        tables.check("SELECT enum_last(m), pg_typeof(m) FROM t WHERE n = 4", &["happy|mood"]);
        tables.check("SELECT 'y'::other, 'x'::s.mood", &["y|x"]);
        let error = "invalid input value for enum mood: \"bad\"\nHINT: The values are 'sad', 'ok', 'happy'.";
        tables.fails("SELECT 'bad'::mood", error);
        tables.fails("SELECT n FROM t WHERE m = 'bad'", error);
    }

    #[test]
    fn domains_check_their_values() {
        let tables = tables();
        tables.check("SELECT 3::odd, NULL::odd, CAST('5' AS known)", &["3|NULL|5"]);
        tables.fails("SELECT 2::odd", "value for domain odd violates check constraint \"odd\"");
        tables.fails("SELECT (-1)::known", "value for domain odd violates check constraint \"odd_check\"");
        tables.fails("SELECT NULL::known", "domain known does not allow null values");
        let known = |text: &str| match tables.planner.types().domain(text) {
            Some(domain) => domain.column("a b", false).unwrap(),
            None => String::new(),
        };
        assert_eq!(known("odd"), "INT CHECK (\"a b\" > 0) CHECK (\"a b\" % 2 <> 0)");
        assert_eq!((known("public.known").as_str(), known("mood").as_str()), ("odd NOT NULL", ""));
    }
}
