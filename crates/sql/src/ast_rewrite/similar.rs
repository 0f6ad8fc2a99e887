//! `SIMILAR TO`, SQL's own regular expressions: `%` and `_` of LIKE with `|`, `*`, `+`, `?`, `{n}`, `(…)` and `[…]`.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Value};

use super::text;
use crate::error::{Error, Result};

/// Rewrites SIMILAR TO to a match of a regular expression.
pub(super) fn rewrite_expression(expression: &mut Expr) -> Result<()> {
    let Expr::SimilarTo { negated, expr, pattern, escape_char } = expression else { return Ok(()) };
    let escape = match escape_char.as_ref().map(|escape| &escape.value) {
        None => Some('\\'),
        Some(Value::SingleQuotedString(escape)) if escape.chars().count() <= 1 => escape.chars().next(),
        Some(_) => return Err(Error::invalid("the ESCAPE of SIMILAR TO is one character, or ''")),
    };
    let pattern = match pattern.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(pattern) => text(&regular(pattern, escape)?),
            _ => pattern.as_ref().clone(),
        },
        _ => {
            return Err(
                Error::unsupported("SIMILAR TO a pattern that isn't a literal").hint("Use ~ or LIKE.")
            );
        }
    };
    let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    let matched = Expr::BinaryOp { left: expr.clone(), op, right: Box::new(pattern) };
    *expression = Expr::Nested(Box::new(matched));
    Ok(())
}

/// Returns the regular expression that is equivalent to the pattern.
fn regular(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut out = String::from("^(?:");
    let mut in_class = false;
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => match chars.next() {
                Some(next) => literal(next, &mut out),
                None => {
                    return Err(Error::invalid("the pattern of SIMILAR TO ends with its escape character"));
                }
            },
            c if in_class => {
                in_class = c != ']';
                out.push(c);
            }
            '[' => {
                in_class = true;
                out.push('[');
            }
            '%' => out.push_str("(?s:.*)"),
            '_' => out.push_str("(?s:.)"),
            '|' | '*' | '+' | '?' | '{' | '}' | '(' | ')' => out.push(c),
            c => literal(c, &mut out),
        }
    }
    out.push_str(")$");
    Ok(out)
}

fn literal(c: char, out: &mut String) {
    if !c.is_alphanumeric() && c.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(c);
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

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
        ] {
            tables.check(&format!("SELECT s FROM t WHERE s SIMILAR TO {pattern}"), expected);
        }
        tables.check("SELECT s FROM t WHERE s NOT SIMILAR TO 'a%'", &["xabcx"]);
    }
}
