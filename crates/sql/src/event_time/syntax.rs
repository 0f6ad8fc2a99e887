//! The syntax of windows: forms that the query parser takes, and forms that are rewritten before.
//!
//! `SESSION(s PARTITION BY k, ts, gap)` becomes `SESSION(s, partition_by(k), ts, gap)`. Flink's
//! `TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' HOUR))` becomes `TUMBLE(s, ts, INTERVAL '1' HOUR)`.
//! Its arguments may have names: `DATA => TABLE s`.

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, TableFactor,
    TableFunctionArgs,
};
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::Kind;
use crate::ast_rewrite;
use crate::dialect::calls::{arguments, closing};
use crate::dml::tree::named_table;
use crate::error::Result;
use crate::hidden_columns::last_name;
use crate::reader::is_word;

/// Flink's names of arguments, in the order of a call.
const NAMES: [&str; 7] = ["DATA", "TIMECOL", "SLIDE", "STEP", "SIZE", "GAP", "OFFSET"];

/// The function whose arguments are the keys of a session.
const KEYS: &str = "partition_by";

/// Rewrites every call in the tokens to the form that the parser takes.
pub(crate) fn rewrite(found: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let called = |at: usize| match (&found[at].token, found.get(at + 1).map(|next| &next.token)) {
        (Token::Word(word), Some(Token::LParen)) if word.quote_style.is_none() => Kind::of(&word.value),
        _ => None,
    };
    if !(0..found.len()).any(|at| called(at).is_some()) {
        return Ok(found);
    }
    let mut out = Vec::with_capacity(found.len());
    let mut at = 0;
    while at < found.len() {
        let wraps = is_word(&found[at].token, "TABLE") && at + 2 < found.len() && called(at + 2).is_some();
        if wraps
            && found[at + 1].token == Token::LParen
            && let (Some(outer), Some(inner)) = (closing(&found, at + 1), closing(&found, at + 3))
            && outer == inner + 1
        {
            out.extend(rewrite(found[at + 2..outer].to_vec())?);
            at = outer + 1;
            continue;
        }
        match (called(at), closing(&found, at + 1)) {
            (Some(kind), Some(end)) => {
                out.extend_from_slice(&found[at..at + 2]);
                out.extend(call(kind, &found[at + 2..end])?);
                out.push(found[end].clone());
                at = end + 1;
            }
            _ => {
                out.push(found[at].clone());
                at += 1;
            }
        }
    }
    Ok(out)
}

/// Returns the arguments of a call.
fn call(kind: Kind, inner: &[TokenWithSpan]) -> Result<Vec<TokenWithSpan>> {
    let mut arguments: Vec<&[TokenWithSpan]> = arguments(inner);
    let name = |argument: &[TokenWithSpan]| {
        let [name, arrow, ..] = argument else { return None };
        (arrow.token == Token::RArrow)
            .then(|| NAMES.iter().position(|known| is_word(&name.token, known)))
            .flatten()
    };
    if arguments.iter().all(|argument| name(argument).is_some()) {
        arguments.sort_by_key(|argument| name(argument));
        arguments.iter_mut().for_each(|argument| *argument = &argument[2..]);
    }
    // Keys contain commas too: the last two arguments are the time and the gap.
    let split = if kind == Kind::Session { arguments.len().saturating_sub(2).max(1) } else { 1 };
    let (input, rest) = arguments.split_at(split.min(arguments.len()));
    let mut out = relation(&joined(input))?;
    for argument in rest {
        out.push(comma(argument, inner));
        let described = match argument {
            [word, open, described @ .., close]
                if is_word(&word.token, "DESCRIPTOR")
                    && open.token == Token::LParen
                    && close.token == Token::RParen =>
            {
                described
            }
            other => other,
        };
        out.extend(rewrite(described.to_vec())?);
    }
    Ok(out)
}

/// Returns the relation of a call, and its keys as an argument of their own.
fn relation(input: &[TokenWithSpan]) -> Result<Vec<TokenWithSpan>> {
    let depths = input.iter().scan(0, |depth, token| {
        match token.token {
            Token::LParen | Token::LBracket => *depth += 1,
            Token::RParen | Token::RBracket => *depth -= 1,
            _ => {}
        }
        Some(*depth)
    });
    let depths: Vec<i32> = depths.collect();
    let by = (1..input.len()).find(|at| {
        depths[*at] == 0 && is_word(&input[at - 1].token, "PARTITION") && is_word(&input[*at].token, "BY")
    });
    let (from, keys) = match by {
        Some(by) => (&input[..by - 1], Some(&input[by + 1..])),
        None => (input, None),
    };
    let from = match from {
        [table, rest @ ..] if is_word(&table.token, "TABLE") && !rest.is_empty() => rest,
        from => from,
    };
    let mut out = rewrite(from.to_vec())?;
    let Some(keys) = keys else { return Ok(out) };
    let bare = match keys {
        [open, bare @ .., _] if open.token == Token::LParen && closing(keys, 0) == Some(keys.len() - 1) => {
            bare
        }
        keys => keys,
    };
    let at = |token| TokenWithSpan { token, span: input[0].span };
    out.extend([at(Token::Comma), at(Token::make_word(KEYS, Some('"'))), at(Token::LParen)]);
    out.extend_from_slice(bare);
    out.push(at(Token::RParen));
    Ok(out)
}

/// Joins the parts of one argument, with the commas between them.
fn joined(arguments: &[&[TokenWithSpan]]) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::new();
    for argument in arguments {
        if !out.is_empty() {
            out.push(comma(argument, argument));
        }
        out.extend_from_slice(argument);
    }
    out
}

fn comma(argument: &[TokenWithSpan], or: &[TokenWithSpan]) -> TokenWithSpan {
    let span = argument.first().or(or.first()).map(|token| token.span);
    TokenWithSpan { token: Token::Comma, span: span.unwrap_or_else(Span::empty) }
}

/// Builds a call of a table function.
pub(super) fn table(name: ObjectName, arguments: Vec<Expr>) -> TableFactor {
    let args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)));
    let mut factor = named_table(name);
    if let TableFactor::Table { args: place, .. } = &mut factor {
        *place = Some(TableFunctionArgs { args: args.collect(), settings: None });
    }
    factor
}

/// Builds the argument with a session's keys.
pub(super) fn keyed(keys: Vec<Expr>) -> Expr {
    ast_rewrite::call(KEYS, keys)
}

/// Converts a function call to a call of a table function.
pub(super) fn table_function(name: ObjectName, arguments: FunctionArguments) -> Option<TableFactor> {
    let FunctionArguments::List(list) = arguments else { return None };
    let mut factor = named_table(name);
    if let TableFactor::Table { args, .. } = &mut factor {
        *args = Some(TableFunctionArgs { args: list.args, settings: None });
    }
    Some(factor)
}

/// Returns the keys of a session, if an argument contains them.
pub(super) fn keys(argument: &Expr) -> Option<Vec<Expr>> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = argument else {
        return None;
    };
    if last_name(name).as_deref() != Some(KEYS) {
        return None;
    }
    let key = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(key)) => Some(key.clone()),
        _ => None,
    };
    list.args.iter().map(key).collect()
}
