//! Rewrites the catalog queries of PostgreSQL's clients: qualified names, object identifiers, `ARRAY(SELECT
//! …)`.
//!
//! | written | planned as |
//! | --- | --- |
//! | `pg_catalog.f(x)`, `information_schema.f(x)`, `public.f(x)` | `f(x)` |
//! | `a OPERATOR(pg_catalog.~) b` | `a ~ b` |
//! | `x COLLATE "default"`, `"C"` | `x`: text has one order, that of its code points |
//! | `'t'::regclass`, `'int4'::regtype` and others | `regclass('t')`: the object's OID |
//! | `x::regclass::text`, and a column of a SELECT's result `x::regclass` | `regclass_text(x)`: the object's name |
//! | `ARRAY(SELECT x … ORDER BY y)` | `coalesce((SELECT array_agg(x ORDER BY y) …), make_array())` |
//! | `FROM pg_catalog.unnest(a)`, `generate_subscripts(a, 1)`, `generate_series(1, t.n)` | `FROM UNNEST(…)` |
//! | `SELECT NULL, NULL` | the second gets a name |
//! | `(f(x)).n` | `get_field(f(x), 'n')` |
//! | `current_schema`, `current_role` | calls of these functions |
//!
//! An OID is shown as the object's name only in a column of the outermost result. Elsewhere it is compared,
//! and stays a number.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, BinaryOperator, CastKind, DataType as SqlType, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, Ident, NormalizationForm, ObjectName, ObjectNamePart, Select,
    SelectItem, SetExpr, Statement, Subscript, TableAlias, TableAliasColumnDef, TableFactor, UnaryOperator,
    Value, ValueWithSpan,
};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::arrays::{add_dimensions, array_of, filled, section};
use super::{call, catalog_rows, rows_from, text};
use crate::ast_walk::visit_expressions_mut;
use crate::error::{Error, Result};
use crate::functions::postgres::like_pattern;
use crate::relation::{INFORMATION_SCHEMA, PG_CATALOG, PUBLIC};
use crate::tokens::DIALECT;

/// Types whose values are OIDs, written as objects' names.
const REGISTERED: [&str; 9] = [
    "regclass",
    "regtype",
    "regproc",
    "regprocedure",
    "regnamespace",
    "regrole",
    "regoper",
    "regoperator",
    "regcollation",
];

/// Collations with the same order of text as here.
const COLLATIONS: [&str; 5] = ["default", "C", "POSIX", "ucs_basic", "C.utf8"];

/// Rewrites an expression after its parts.
pub(super) fn rewrite_expression(expression: &mut Expr) -> Result<()> {
    match expression {
        Expr::Function(function) => {
            unqualify(&mut function.name);
            name_sequence(function);
            if let Some(set) = set_of(function) {
                *expression = set;
                return Ok(());
            }
            if let Some(array) = array_of(function)? {
                *expression = array;
            } else if let Some(array) = filled(function).or_else(|| normalized(function)) {
                *expression = array;
            }
        }
        Expr::IsNormalized { expr, form, negated } => {
            let value = std::mem::replace(expr.as_mut(), Expr::value(Value::Null));
            *expression = has_normal_form(value, *form, *negated);
        }
        Expr::Collate { expr, collation } => {
            known_collation(collation)?;
            *expression = std::mem::replace(expr.as_mut(), Expr::value(Value::Null));
        }
        Expr::BinaryOp { op, .. } => {
            if let BinaryOperator::PGCustomBinaryOperator(parts) = op {
                *op = operator(parts)?;
            }
        }
        Expr::Cast { expr, data_type, kind, array: false, .. } => {
            add_dimensions(expr, data_type);
            if let Some(new) = cast(expr, data_type, kind) {
                *expression = new;
            }
        }
        Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
            escape_by_backslash(pattern, escape_char);
        }
        Expr::CompoundFieldAccess { root, access_chain } => {
            if let [before @ .., AccessExpr::Subscript(Subscript::Index { index })] =
                access_chain.as_mut_slice()
                && match before {
                    [] => column_of(root, &VECTORS),
                    [.., AccessExpr::Dot(column)] => column_of(column, &VECTORS),
                    _ => false,
                }
            {
                *index = plus_one(std::mem::replace(index, Expr::value(Value::Null)));
            }
            if let Some(section) = section(root, access_chain)? {
                *expression = section;
                return Ok(());
            }
            if let (Expr::Nested(_), Some(fields)) = (root.as_ref(), fields(access_chain)) {
                let root = std::mem::replace(root.as_mut(), Expr::value(Value::Null));
                *expression = fields.iter().fold(root, |of, field| call("get_field", vec![of, text(field)]));
            }
        }
        Expr::Identifier(name) if name.quote_style.is_none() => {
            let lower = name.value.to_lowercase();
            if ["current_schema", "current_role"].contains(&lower.as_str()) {
                *expression = call(&lower, Vec::new());
            }
        }
        _ => {}
    }
    Ok(())
}

/// Returns the names in `.a.b`.
fn fields(chain: &[AccessExpr]) -> Option<Vec<String>> {
    let name = |access: &AccessExpr| match access {
        AccessExpr::Dot(Expr::Identifier(field)) => Some(field.value.clone()),
        _ => None,
    };
    chain.iter().map(name).collect()
}

/// Rewrites `x IS [NOT] NFC NORMALIZED` to a call.
fn has_normal_form(value: Expr, form: Option<NormalizationForm>, is_negated: bool) -> Expr {
    let form = form.map_or_else(|| "NFC".to_string(), |form| form.to_string());
    let is_normalized = call("is_normalized", vec![value, text(&form)]);
    match is_negated {
        true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(is_normalized) },
        false => is_normalized,
    }
}

/// Rewrites `normalize(x)` and `normalize(x, NFD)`, whose second argument is a word, to `normalize(x, 'NFD')`.
fn normalized(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    if !function.name.to_string().eq_ignore_ascii_case("normalize") {
        return None;
    }
    let form = match list.args.get(1) {
        None => "NFC".to_string(),
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(form)))) => form.value.clone(),
        Some(_) => return None,
    };
    match &list.args[..] {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(value)), ..] if list.args.len() <= 2 => {
            Some(call("normalize", vec![value.clone(), text(&form)]))
        }
        _ => None,
    }
}

/// The functions of a sequence, which they get by its name.
const OF_SEQUENCES: [&str; 3] = ["nextval", "currval", "setval"];

/// Rewrites `nextval('s'::regclass)` to `nextval('s')`: the sequence of an identity column has no OID.
fn name_sequence(function: &mut Function) {
    let name = function.name.to_string();
    if !OF_SEQUENCES.iter().any(|known| name.eq_ignore_ascii_case(known)) {
        return;
    }
    let FunctionArguments::List(list) = &mut function.args else { return };
    if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(sequence))) = list.args.first_mut()
        && let Expr::Function(cast) = bare(sequence)
        && cast.name.to_string() == "regclass"
        && let FunctionArguments::List(written) = &cast.args
        && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(name))] = &written.args[..]
        && written_out(name).is_some()
    {
        *sequence = name.clone();
    }
}

/// Names unnamed columns of a result that have the same text: `SELECT NULL, NULL`. In a query that is read
/// `once`, whose columns need no names of their own, also names plain columns: `SELECT t.a, t.*`.
pub(super) fn tell_apart(select: &mut Select, once: bool) {
    let wildcards: Vec<String> = select
        .projection
        .iter()
        .filter_map(|item| match item {
            SelectItem::Wildcard(_) => Some(String::new()),
            SelectItem::QualifiedWildcard(kind, _) => {
                Some(kind.to_string().trim_end_matches(".*").to_string())
            }
            _ => None,
        })
        .collect();
    let mut seen: Vec<String> = Vec::new();
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expression) = item else { continue };
        let written = without_casts(expression);
        let again = match expression {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) if !once => continue,
            Expr::Identifier(_) => !wildcards.is_empty(),
            Expr::CompoundIdentifier(_) => {
                let qualifier = written.rsplit_once('.').map_or("", |(qualifier, _)| qualifier);
                wildcards.iter().any(|of| of.is_empty() || of == qualifier)
            }
            _ => false,
        };
        let before = seen.iter().filter(|other| **other == written).count();
        if before > 0 || again {
            let alias = Ident::with_quote('"', format!("{written}:{}", before + 1));
            let expr = std::mem::replace(expression, Expr::value(Value::Null));
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
        seen.push(written);
    }
}

/// Returns an expression as text without its casts, which the planner's names leave out, too.
fn without_casts(expression: &Expr) -> String {
    let mut bare = expression.clone();
    let _ = visit_expressions_mut(&mut bare, |part| {
        while let Expr::Cast { expr, .. } | Expr::Nested(expr) = part {
            *part = expr.as_ref().clone();
        }
        if let Expr::TypedString(typed) = part {
            *part = Expr::Value(typed.value.clone());
        }
        ControlFlow::<()>::Continue(())
    });
    bare.to_string()
}

/// Rewrites `LIKE 'a/_' ESCAPE '/'` to `LIKE 'a\_'`, and `LIKE x ESCAPE '/'` to `LIKE like_pattern(x, '/')`.
fn escape_by_backslash(pattern: &mut Expr, escape: &mut Option<ValueWithSpan>) {
    let Some(Value::SingleQuotedString(character)) = escape.as_ref().map(|escape| &escape.value) else {
        return;
    };
    let mut characters = character.chars();
    let escaping = characters.next();
    if characters.next().is_some() || escaping == Some('\\') {
        return;
    }
    *pattern = match written_out(pattern) {
        Some(written) => text(&like_pattern(&written, escaping)),
        None => {
            let pattern = std::mem::replace(pattern, Expr::value(Value::Null));
            call("like_pattern", vec![pattern, text(character)])
        }
    };
    *escape = None;
}

/// Returns the text of a literal, or of a concatenation of literals.
fn written_out(expression: &Expr) -> Option<String> {
    match bare(expression) {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        Expr::BinaryOp { left, op: BinaryOperator::StringConcat, right } => {
            Some(written_out(left)? + &written_out(right)?)
        }
        _ => None,
    }
}

/// Removes PostgreSQL's schema from the name of a function in FROM. Plans set-returning functions over a
/// row's own values.
pub(super) fn table_function(factor: &mut TableFactor) {
    if let TableFactor::UNNEST { alias, array_exprs, with_ordinality: true, .. } = factor
        && let [array] = array_exprs.as_mut_slice()
    {
        let array = std::mem::replace(array, Expr::value(Value::Null));
        if let Some(numbered) = numbered(array, alias.take()) {
            *factor = numbered;
        }
        return;
    }
    let is_planned = rows_from::is_literal_series(factor);
    let (name, arguments, alias, is_numbered) = match factor {
        TableFactor::Table { name, args: Some(arguments), alias, with_ordinality, .. } => {
            (name, &arguments.args, alias, *with_ordinality)
        }
        TableFactor::Function { name, args, alias, with_ordinality, .. } => {
            (name, &*args, alias, *with_ordinality)
        }
        _ => return,
    };
    unqualify(name);
    if is_planned && !is_numbered {
        return;
    }
    let called = name.to_string().to_lowercase();
    let arguments: Option<Vec<Expr>> = arguments
        .iter()
        .map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression.clone()),
            _ => None,
        })
        .collect();
    let Some(arguments) = arguments else { return };
    if is_numbered {
        let lists = rows_from::lists(&called, arguments).map(<[Expr; 1]>::try_from);
        if let Some(Ok([list])) = lists
            && let Some(numbered) = numbered(list, Some(alias.take().unwrap_or_else(|| named(&called))))
        {
            *factor = numbered;
        }
        return;
    }
    if let Some((subquery, lateral)) = catalog_rows::query(&called, &arguments) {
        let alias = alias.take().or_else(|| Some(named(&called)));
        *factor = TableFactor::Derived { lateral, subquery, alias, sample: None };
        return;
    }
    let Some(arrays) = rows_from::lists(&called, arguments) else { return };
    let alias = alias.take().map(column_alias).or_else(|| Some(column_alias(named(&called))));
    *factor = TableFactor::UNNEST {
        alias,
        array_exprs: arrays,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    };
}

/// Rewrites `UNNEST(a) WITH ORDINALITY AS t(x, n)` to a subquery that numbers the elements.
fn numbered(array: Expr, alias: Option<TableAlias>) -> Option<TableFactor> {
    let mut alias = alias.unwrap_or_else(|| named("unnest"));
    for name in [alias.name.clone(), Ident::new("ordinality")].into_iter().skip(alias.columns.len()) {
        alias.columns.push(TableAliasColumnDef { name, data_type: None });
    }
    let text = "SELECT get_field(e, 'x'), CAST(get_field(e, 'n') AS BIGINT) FROM UNNEST(a) AS u(e)";
    let Ok(Statement::Query(mut subquery)) = parsed(text) else { return None };
    if let SetExpr::Select(select) = subquery.body.as_mut()
        && let Some(TableFactor::UNNEST { array_exprs, .. }) =
            select.from.first_mut().map(|from| &mut from.relation)
    {
        *array_exprs = vec![call("array_expanded", vec![array])];
    }
    Some(TableFactor::Derived { lateral: true, subquery, alias: Some(alias), sample: None })
}

fn named(name: &str) -> TableAlias {
    TableAlias { explicit: true, name: Ident::new(name), columns: Vec::new(), at: None }
}

/// Gives the single column of a function's rows the same name as the rows.
fn column_alias(mut alias: TableAlias) -> TableAlias {
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    }
    alias
}

/// Shows OIDs as names in the columns of a query's result. Only a query that runs once can do that.
pub(super) fn show_names(statement: &mut Statement, known: &dyn Fn(&str) -> bool) {
    if !known(super::RUNS_ONCE) {
        return;
    }
    if let Statement::Query(query) = statement {
        shown_in(&mut query.body);
    }
}

fn shown_in(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => select.projection.iter_mut().for_each(show_item),
        SetExpr::Query(query) => shown_in(&mut query.body),
        SetExpr::SetOperation { left, right, .. } => {
            shown_in(left);
            shown_in(right);
        }
        _ => {}
    }
}

fn show_item(item: &mut SelectItem) {
    let (SelectItem::UnnamedExpr(expression) | SelectItem::ExprWithAlias { expr: expression, .. }) = item
    else {
        return;
    };
    let is_found = matches!(bare(expression), Expr::Function(call) if registered_function(call).is_some());
    if is_found || registered_cast(expression).is_some() || column_of(expression, &OF_FUNCTIONS) {
        let expr = Box::new(std::mem::replace(expression, Expr::value(Value::Null)));
        let (kind, data_type) = (CastKind::DoubleColon, SqlType::Text);
        *expression = Expr::Cast { kind, expr, data_type, array: false, format: None };
    }
}

/// Columns of PostgreSQL's catalog that contain OIDs of functions.
const OF_FUNCTIONS: [&str; 9] = [
    "typinput",
    "typoutput",
    "typreceive",
    "typsend",
    "typmodin",
    "typmodout",
    "typanalyze",
    "typsubscript",
    "amhandler",
];

/// Columns of PostgreSQL's catalog that contain arrays with subscripts from 0.
const VECTORS: [&str; 6] = ["indkey", "indclass", "indcollation", "indoption", "proargtypes", "prattrs"];

/// True if an expression is a column of one of these names.
fn column_of(expression: &Expr, names: &[&str]) -> bool {
    let name = match bare(expression) {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    };
    name.is_some_and(|name| names.iter().any(|known| known.eq_ignore_ascii_case(&name.value)))
}

fn registered_cast(expression: &Expr) -> Option<&'static str> {
    match expression {
        Expr::Cast { data_type, array: false, .. } => registered(data_type),
        Expr::Nested(inner) => registered_cast(inner),
        _ => None,
    }
}

/// Returns the name of a type whose values are OIDs.
fn registered(data_type: &SqlType) -> Option<&'static str> {
    let name = match data_type {
        SqlType::Regclass => return Some("regclass"),
        SqlType::Custom(name, modifiers) if modifiers.is_empty() => name.to_string().to_lowercase(),
        _ => return None,
    };
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    REGISTERED.into_iter().find(|known| *known == name)
}

fn cast(value: &mut Expr, data_type: &mut SqlType, kind: &CastKind) -> Option<Expr> {
    if let Some(name) = registered(data_type) {
        let value = std::mem::replace(value, Expr::value(Value::Null));
        return Some(call(name, vec![value]));
    }
    unqualify_type(data_type);
    let to_text = match data_type {
        SqlType::Text | SqlType::Varchar(None) | SqlType::CharacterVarying(None) => true,
        SqlType::Custom(name, _) => name.to_string().eq_ignore_ascii_case("name"),
        _ => false,
    };
    if to_text && column_of(value, &OF_FUNCTIONS) {
        let number = std::mem::replace(value, Expr::value(Value::Null));
        return Some(call("regproc_text", vec![number]));
    }
    // The text of an OID is the object's name.
    if to_text
        && let Expr::Function(function) = bare(value)
        && let Some(name) = registered_function(function)
        && matches!(kind, CastKind::Cast | CastKind::DoubleColon)
    {
        let number = std::mem::replace(value, Expr::value(Value::Null));
        return Some(call(&format!("{name}_text"), vec![number]));
    }
    None
}

/// Returns an expression without the parentheses around it.
pub(crate) fn bare(mut expression: &Expr) -> &Expr {
    while let Expr::Nested(inner) = expression {
        expression = inner;
    }
    expression
}

/// Returns the type of OIDs that a function returns: `regtype` for `regtype(…)` and `to_regtype(…)`.
fn registered_function(call: &Function) -> Option<&'static str> {
    let name = call.name.to_string().to_lowercase();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    let name = name.strip_prefix("to_").unwrap_or(name);
    REGISTERED.into_iter().find(|known| *known == name)
}

/// Rewrites `pg_catalog.int4` to `int4`.
fn unqualify_type(data_type: &mut SqlType) {
    if let SqlType::Array(ArrayElemTypeDef::SquareBracket(element, _)) = data_type {
        return unqualify_type(element);
    }
    let SqlType::Custom(name, modifiers) = data_type else { return };
    let [schema, part] = name.0.as_slice() else { return };
    if !is_schema(schema) || !modifiers.is_empty() {
        return;
    }
    let Some(name) = part.as_ident() else { return };
    // `pg_catalog."char"` is the one-byte type, not CHAR.
    if name.quote_style.is_some() && name.value == "char" {
        *data_type = SqlType::Text;
        return;
    }
    let parsed =
        Parser::new(&DIALECT).try_with_sql(&name.value).and_then(|mut parser| parser.parse_data_type());
    if let Ok(parsed) = parsed {
        *data_type = parsed;
    }
}

fn plus_one(index: Expr) -> Expr {
    let one = Expr::value(Value::Number("1".into(), false));
    let index = Expr::Nested(Box::new(index));
    Expr::BinaryOp { left: Box::new(index), op: BinaryOperator::Plus, right: Box::new(one) }
}

fn is_schema(part: &ObjectNamePart) -> bool {
    part.as_ident().is_some_and(|name| {
        let lower = name.value.to_lowercase();
        lower == PG_CATALOG || lower == INFORMATION_SCHEMA
    })
}

fn unqualify(name: &mut ObjectName) {
    let is_public = |part: &ObjectNamePart| part.as_ident().is_some_and(|name| name.value == PUBLIC);
    if name.0.len() == 2 && (is_schema(&name.0[0]) || is_public(&name.0[0])) {
        name.0.remove(0);
    }
}

fn known_collation(name: &ObjectName) -> Result<()> {
    let collation = name.0.last().and_then(ObjectNamePart::as_ident).map_or("", |part| part.value.as_str());
    match COLLATIONS.iter().any(|known| known.eq_ignore_ascii_case(collation)) {
        true => Ok(()),
        false => Err(Error::unsupported(format!("COLLATE {name}"))
            .hint("Text is ordered by its code points, as COLLATE \"C\" does.")),
    }
}

/// Returns the operator of a qualified name.
fn operator(parts: &[String]) -> Result<BinaryOperator> {
    let name = parts.last().map_or("", String::as_str);
    Ok(match name {
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        "%" => BinaryOperator::Modulo,
        "||" => BinaryOperator::StringConcat,
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        "&&" => BinaryOperator::PGOverlap,
        "@>" => BinaryOperator::AtArrow,
        "<@" => BinaryOperator::ArrowAt,
        other => return Err(Error::unsupported(format!("OPERATOR({other})"))),
    })
}

/// Rewrites functions of an array that return a row for each of its elements.
fn set_of(function: &Function) -> Option<Expr> {
    let array = match function.name.to_string().to_lowercase().as_str() {
        "generate_subscripts" => "array_subscripts",
        "_pg_expandarray" => "array_expanded",
        _ => return None,
    };
    let FunctionArguments::List(list) = &function.args else { return None };
    let of_vector = matches!(list.args.first(), Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(array)))
        if column_of(array, &VECTORS));
    let array = if of_vector && array == "array_subscripts" { "vector_subscripts" } else { array };
    let arguments = list.args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression.clone()),
        _ => None,
    });
    Some(call("unnest", vec![call(array, arguments.collect::<Option<_>>()?)]))
}

pub(crate) fn parsed(sql: &str) -> std::result::Result<Statement, ParserError> {
    Parser::new(&DIALECT).try_with_sql(sql).and_then(|mut parser| parser.parse_statement())
}
