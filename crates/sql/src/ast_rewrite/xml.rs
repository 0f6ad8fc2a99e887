//! Rewrites XMLTABLE, and PostgreSQL's `xpath`, which has the name of Spark's.
//!
//! | written | planned as |
//! | --- | --- |
//! | `XMLTABLE('/r' PASSING x COLUMNS n FOR ORDINALITY, a INT PATH '@a' DEFAULT 1) AS t` | `LATERAL (SELECT e[1]::INT, coalesce(e[2]::INT, 1::INT) FROM UNNEST(xml_table('/r', x, NULL, 'on', '', '@a')) AS u(e)) AS t(n, a)` |
//! | `xpath('/a', '<a/>')`, `xpath('/p:a', x, namespaces)` | `xml_xpath('/a', '<a/>')`, and so on |
//!
//! Other calls of `xpath` with two arguments are resolved by the type of the second one.

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as SqlType, Expr, Function, Ident, ObjectName, SelectItem, SetExpr, Statement,
    TableAlias, TableAliasColumnDef, TableFactor, Value, XmlTableColumn, XmlTableColumnOption,
};

use super::postgres::parsed;
use super::{call, make_array, scopes, shorthand, text};
use crate::error::{Error, Result};

/// Rewrites XMLTABLE to a subquery over UNNEST.
pub(super) fn table_function(factor: &mut TableFactor) -> Result<()> {
    let TableFactor::XmlTable { namespaces, row_expression, passing, columns, alias } = factor else {
        return Ok(());
    };
    let [document] = &passing.arguments[..] else {
        return Err(
            Error::invalid("XMLTABLE takes one document").hint("Write XMLTABLE('/a' PASSING x COLUMNS …).")
        );
    };
    let pairs = namespaces
        .iter()
        .map(|space| make_array(vec![text(&scopes::folded(&space.name)), space.uri.clone()]));
    let pairs = match namespaces.is_empty() {
        true => Expr::value(Value::Null),
        false => make_array(pairs.collect()),
    };
    let (letters, paths): (String, Vec<Expr>) = columns.iter().map(letter_and_path).unzip();
    let mut arguments = vec![row_expression.clone(), document.expr.clone(), pairs, text(&letters)];
    arguments.extend(paths);
    let items = columns.iter().enumerate().map(|(at, column)| {
        let alias = Ident::new(format!("c{at}"));
        SelectItem::ExprWithAlias { expr: item(at + 1, column), alias }
    });
    let Ok(Statement::Query(mut subquery)) = parsed("SELECT e FROM UNNEST(a) AS u(e)") else { return Ok(()) };
    if let SetExpr::Select(select) = subquery.body.as_mut() {
        select.projection = items.collect();
        if let Some(TableFactor::UNNEST { array_exprs, .. }) =
            select.from.first_mut().map(|from| &mut from.relation)
        {
            *array_exprs = vec![call("xml_table", arguments)];
        }
    }
    let named = || TableAlias { explicit: true, name: Ident::new("xmltable"), columns: Vec::new(), at: None };
    let mut alias = alias.take().unwrap_or_else(named);
    let unnamed = columns.iter().skip(alias.columns.len()).map(|column| column.name.clone());
    let unnamed: Vec<Ident> = unnamed.collect();
    alias.columns.extend(unnamed.into_iter().map(|name| TableAliasColumnDef { name, data_type: None }));
    *factor = TableFactor::Derived { lateral: true, subquery, alias: Some(alias), sample: None };
    Ok(())
}

/// Returns the letter of a column's kind, which `functions/xml/paths.rs` reads, and its path.
fn letter_and_path(column: &XmlTableColumn) -> (char, Expr) {
    let XmlTableColumnOption::NamedInfo { r#type, path, .. } = &column.option else {
        return ('o', text(""));
    };
    let is_number = matches!(
        r#type,
        SqlType::SmallInt(_)
            | SqlType::Int(_)
            | SqlType::Integer(_)
            | SqlType::BigInt(_)
            | SqlType::Int2(_)
            | SqlType::Int4(_)
            | SqlType::Int8(_)
            | SqlType::TinyInt(_)
            | SqlType::Numeric(_)
            | SqlType::Decimal(_)
            | SqlType::Dec(_)
            | SqlType::Real
            | SqlType::Float(_)
            | SqlType::Float4
            | SqlType::Float8
            | SqlType::Double(_)
            | SqlType::DoublePrecision
    );
    let is_xml = matches!(r#type, SqlType::Custom(name, _) if name.to_string().eq_ignore_ascii_case("xml"));
    let letter = match () {
        () if is_xml => 'x',
        () if is_number => 'n',
        () => 't',
    };
    (letter, path.clone().unwrap_or_else(|| text(&scopes::folded(&column.name))))
}

/// Returns the value of a column: an element of a row's array.
fn item(place: usize, column: &XmlTableColumn) -> Expr {
    let place = Expr::value(Value::Number(place.to_string(), false));
    let value = call("array_element", vec![Expr::Identifier(Ident::new("e")), place]);
    let cast = |value: Expr, data_type: &SqlType| Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(value),
        data_type: data_type.clone(),
        array: false,
        format: None,
    };
    let XmlTableColumnOption::NamedInfo { r#type, default, nullable, .. } = &column.option else {
        return cast(value, &SqlType::Int(None));
    };
    let not_null = |value| call("xml_not_null", vec![value, text(&scopes::folded(&column.name))]);
    match (default, nullable) {
        (None, true) => cast(value, r#type),
        (None, false) => cast(not_null(value), r#type),
        (Some(default), true) => call("coalesce", vec![cast(value, r#type), cast(default.clone(), r#type)]),
        (Some(default), false) => {
            let value = call("coalesce", vec![value, cast(default.clone(), &SqlType::Text)]);
            cast(not_null(value), r#type)
        }
    }
}

/// Names PostgreSQL's `xpath` where a call can't be Spark's.
pub(super) fn name_xpath(function: &mut Function) {
    if function.name.to_string().to_lowercase() != "xpath" {
        return;
    }
    let is_ours = match shorthand::arguments(function).as_deref() {
        Some([_, Expr::Value(value)]) => match &value.value {
            Value::SingleQuotedString(text) => text.trim_start().starts_with('<'),
            _ => false,
        },
        Some([_, _, _]) => true,
        _ => false,
    };
    if is_ours {
        function.name = ObjectName::from(vec![Ident::new("xml_xpath")]);
    }
}
