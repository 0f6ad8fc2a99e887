//! Patterns: regular expressions in PostgreSQL's syntax, SIMILAR TO, LIKE ANY, and prefix operators of PostgreSQL.
//!
//! | written | planned as |
//! | --- | --- |
//! | `x ~ '\mword'` | `x ~ '\b{start}word'`: the crate `regex` has another syntax |
//! | `x ~ '(a)\1'` | `regexp_like`: the crate `regex` has neither back references nor lookaround |
//! | `x SIMILAR TO 'a%'` | `x ~ '(?s)^(?:a.*)$'` |
//! | `substring(x FROM 'a.')` | `regexp_substr`, by the first group if there is one |
//! | `substring(x SIMILAR 'a#"b#"' ESCAPE '#')` | `similar_part(x, 'a#"b#"', '#')` |
//! | `substring(x FROM 2)`, `position(x IN y)`, `overlay(…)` | `substr`, `strpos`, `overlay` by name: BYTEA has forms of its own |
//! | `x LIKE ANY (array)` | `like_any(x, array)` |
//! | `# x`, `@@ x`, `@-@ x`, `?- x`, `?\| x`, for a geometric `x` | functions of these names |
//! | `x ^@ y`, `@ x`, `\|/ x`, `\|\|/ x`, `~ x` | `starts_with(x, y)`, `abs(x)`, `sqrt(x)`, `cbrt(x)`, `x # -1` |

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType as SqlType, Expr, UnaryOperator, Value,
};

use super::{call, text};
use crate::error::{Error, Result};
use crate::functions::postgres::regexp;

/// Rewrites one expression.
pub(super) fn rewrite_expression(expression: &mut Expr) -> Result<()> {
    match expression {
        Expr::BinaryOp { op, .. } if is_match(op) => return matched(expression),
        Expr::BinaryOp { left, op: BinaryOperator::PGStartsWith, right } => {
            *expression = call("starts_with", vec![taken(left), taken(right)]);
        }
        Expr::UnaryOp { op, expr } => {
            let function = match op {
                UnaryOperator::PGAbs => "abs",
                UnaryOperator::PGSquareRoot => "sqrt",
                UnaryOperator::PGCubeRoot => "cbrt",
                UnaryOperator::Hash => "#",
                UnaryOperator::DoubleAt => "@@",
                UnaryOperator::AtDashAt => "@-@",
                UnaryOperator::QuestionDash => "?-",
                UnaryOperator::QuestionPipe => "?|",
                UnaryOperator::BitwiseNot => {
                    let ones = Expr::Nested(Box::new(Expr::UnaryOp {
                        op: UnaryOperator::Minus,
                        expr: Box::new(Expr::value(Value::Number("1".into(), false))),
                    }));
                    let (left, op) =
                        (Box::new(Expr::Nested(Box::new(taken(expr)))), BinaryOperator::PGBitwiseXor);
                    let inverse = Expr::BinaryOp { left, op, right: Box::new(ones) };
                    *expression = Expr::Nested(Box::new(inverse));
                    return Ok(());
                }
                _ => return Ok(()),
            };
            *expression = call(function, vec![taken(expr)]);
        }
        Expr::Like { negated, any: true, expr, pattern, .. } => {
            let name = if *negated { "not_like_any" } else { "like_any" };
            *expression = call(name, vec![taken(expr), taken(pattern)]);
        }
        Expr::ILike { negated, any: true, expr, pattern, .. } => {
            let name = if *negated { "not_ilike_any" } else { "ilike_any" };
            *expression = call(name, vec![taken(expr), taken(pattern)]);
        }
        Expr::SimilarTo { .. } => return similar(expression),
        Expr::Substring { .. } => part(expression),
        Expr::Position { expr, r#in } => *expression = call("strpos", vec![taken(r#in), taken(expr)]),
        Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
            let mut arguments = vec![taken(expr), taken(overlay_what), taken(overlay_from)];
            arguments.extend(overlay_for.as_mut().map(|count| taken(count)));
            *expression = call("overlay", arguments);
        }
        _ => {}
    }
    Ok(())
}

fn taken(expression: &mut Expr) -> Expr {
    std::mem::replace(expression, Expr::value(Value::Null))
}

fn is_match(op: &BinaryOperator) -> bool {
    use BinaryOperator::{PGRegexIMatch, PGRegexMatch, PGRegexNotIMatch, PGRegexNotMatch};
    matches!(op, PGRegexMatch | PGRegexIMatch | PGRegexNotMatch | PGRegexNotIMatch)
}

/// Rewrites a match with a regular expression.
fn matched(expression: &mut Expr) -> Result<()> {
    let Expr::BinaryOp { left, op, right } = expression else { return Ok(()) };
    let pattern = taken(right);
    let Some(written) = literal(&pattern) else {
        **right = if is_null(&pattern) { pattern } else { call(regexp::PATTERN, vec![typed(pattern)]) };
        return Ok(());
    };
    if let Some(linear) = regexp::linear_pattern(written)? {
        **right = text(&linear);
        return Ok(());
    }
    use BinaryOperator::{PGRegexIMatch, PGRegexNotIMatch, PGRegexNotMatch};
    let mut arguments = vec![taken(left), text(written)];
    if matches!(op, PGRegexIMatch | PGRegexNotIMatch) {
        arguments.push(text("i"));
    }
    let is_match = call("postgres_regexp_like", arguments);
    *expression = match op {
        PGRegexNotMatch | PGRegexNotIMatch => {
            Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(is_match))) }
        }
        _ => is_match,
    };
    Ok(())
}

fn literal(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text)
            | Value::EscapedStringLiteral(text)
            | Value::NationalStringLiteral(text) => Some(text),
            Value::DollarQuotedString(text) => Some(&text.value),
            _ => None,
        },
        Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

fn is_null(expression: &Expr) -> bool {
    matches!(expression, Expr::Value(value) if value.value == Value::Null)
}

/// Gives a parameter its type: functions of any type don't.
fn typed(pattern: Expr) -> Expr {
    let mut bare = &pattern;
    while let Expr::Nested(inner) = bare {
        bare = inner;
    }
    match bare {
        Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(pattern),
            data_type: SqlType::Text,
            array: false,
            format: None,
        },
        _ => pattern,
    }
}

fn similar(expression: &mut Expr) -> Result<()> {
    let Expr::SimilarTo { negated, expr, pattern, escape_char } = expression else { return Ok(()) };
    let escape = match escape_char.as_ref().map(|escape| &escape.value) {
        None => "\\".to_string(),
        Some(Value::SingleQuotedString(escape)) => escape.clone(),
        Some(_) => return Err(Error::invalid("the ESCAPE of SIMILAR TO is one character, or ''")),
    };
    let pattern = taken(pattern);
    let pattern = match literal(&pattern) {
        Some(written) => text(&regexp::similar_pattern(written, &escape)?),
        None => call(regexp::SIMILAR, vec![typed(pattern), text(&escape)]),
    };
    let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    let matched = Expr::BinaryOp { left: Box::new(taken(expr)), op, right: Box::new(pattern) };
    *expression = Expr::Nested(Box::new(matched));
    Ok(())
}

/// Rewrites `substring(x FROM 'pattern')` and `substring(x FROM 'pattern' FOR 'escape')`, and forms with numbers.
fn part(expression: &mut Expr) {
    let Expr::Substring { expr, substring_from, substring_for, .. } = expression else { return };
    let Some(pattern) = substring_from else {
        if let Some(count) = substring_for {
            let one = Expr::value(Value::Number("1".into(), false));
            *expression = call("substr", vec![taken(expr), one, taken(count)]);
        }
        return;
    };
    let is_text = literal(pattern).is_some();
    match substring_for {
        Some(escape) if is_text || literal(escape).is_some() => {
            let arguments = vec![taken(expr), taken(pattern), taken(escape)];
            *expression = call(regexp::SIMILAR_PART, arguments);
        }
        None if is_text => {
            let found = call("postgres_regexp_match", vec![taken(expr), taken(pattern)]);
            *expression = call("array_element", vec![found, Expr::value(Value::Number("1".into(), false))]);
        }
        count => {
            let mut arguments = vec![taken(expr), taken(pattern)];
            arguments.extend(count.as_mut().map(|count| taken(count)));
            *expression = call("substr", arguments);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn patterns_look_around_and_back() {
        let tables = Tables::new().table("t", "(s TEXT)", "VALUES ('abab'), ('abBA'), (NULL)");
        for (condition, expected) in [
            ("s ~ '(..)\\1'", &["abab"][..]),
            ("s ~* '(.)\\1'", &["abBA"]),
            ("s !~ '(..)\\1'", &["abBA"]),
            ("s !~* 'b(?=b)'", &["abab"]),
            ("NOT s ~ 'b(?!a|$)'", &["abab"]),
        ] {
            tables.check(&format!("SELECT s FROM t WHERE {condition}"), expected);
        }
    }

    #[test]
    fn patterns_match_whole_texts() {
        let tables = Tables::new().table("t", "(s TEXT)", "VALUES ('abc'), ('a%'), ('xabcx'), ('a.c')");
        for (pattern, expected) in [
            ("'a%'", &["a%", "a.c", "abc"][..]),
            ("'a_c'", &["a.c", "abc"]),
            ("'(x|)abc(x|)'", &["abc", "xabcx"]),
            ("'a\\%'", &["a%"]),
            ("'a#%' ESCAPE '#'", &["a%"]),
            ("'a.c'", &["a.c"]),
            ("'[a-b]+c'", &["abc"]),
            ("concat('a', '_c')", &["a.c", "abc"]),
        ] {
            tables.check(&format!("SELECT s FROM t WHERE s SIMILAR TO {pattern}"), expected);
        }
        tables.check("SELECT s FROM t WHERE s NOT SIMILAR TO 'a%'", &["xabcx"]);
    }
}
