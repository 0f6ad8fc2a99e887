//! Other systems' syntax for windows of event time, in the parsed statement: functions of a row's time in
//! GROUP BY and SELECT, and the frame of an OVER.
//!
//! | written | becomes |
//! | --- | --- |
//! | `FROM t GROUP BY TUMBLE(ts, i), k` (and HOP, SESSION) | `FROM TUMBLE((SELECT * FROM t), ts, i) GROUP BY window_start, window_end, k` |
//! | `TUMBLE_START(ts, i)`, `TUMBLE_END(ts, i)`, `TUMBLE_ROWTIME(ts, i)` | `window_start`, `window_end`, `window_end` less a millisecond |
//! | `window(ts, size [, slide [, start]])`, `session_window(ts, gap)` | the same, as `window.start` and `window.end` |
//! | `f(x) OVER (PARTITION BY k ORDER BY ts SESSION WITH GAP i)` | `f(x) OVER (PARTITION BY k, window_start …)` over all its rows |
//!
//! So each groups by the columns of a window, which closes like any other. The key of a session is the other
//! groups, or the PARTITION BY of OVER. A session only contains rows that pass WHERE.
//!
//! Deliberately absent: several windows in one SELECT.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    ObjectName, OrderByKind, Query, Select, SelectItem, SetExpr, Statement, Value, VisitorMut, WindowSpec,
    WindowType,
};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::{Kind, WINDOW_END, WINDOW_START, syntax, window_time};
use crate::ast_walk::walk_mut;
use crate::dml::tree::{plain_from, quoted, select_of};
use crate::error::{Error, Result};
use crate::hidden_columns::{exclude, fold, last_name};
use crate::reader::is_word;
use crate::tokens::DIALECT;

/// The sort key that replaces SESSION WITH GAP until the statement is parsed.
const SESSION_GAP: &str = "!session_gap";

/// Rewrites a statement in place.
pub(crate) fn rewrite_statement(statement: &mut Statement) -> Result<()> {
    match walk_mut(statement, &mut Spellings) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Rewrites every `SESSION WITH GAP i` in the tokens to a sort key and a frame of all rows.
pub(crate) fn rewrite(found: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let begins = |at: usize| {
        ["SESSION", "WITH", "GAP"]
            .iter()
            .enumerate()
            .all(|(next, word)| found.get(at + next).is_some_and(|token| is_word(&token.token, word)))
    };
    if !(0..found.len()).any(begins) {
        return found;
    }
    let mut out = Vec::with_capacity(found.len() + 8);
    let (mut at, mut depth, mut open) = (0, 0, None);
    while at < found.len() {
        let token = &found[at];
        let put = |out: &mut Vec<TokenWithSpan>, token: Token| {
            out.push(TokenWithSpan { token, span: found[at].span })
        };
        if begins(at) {
            [Token::Comma, Token::make_word(SESSION_GAP, Some('"')), Token::LParen]
                .into_iter()
                .for_each(|token| put(&mut out, token));
            open = Some(depth);
            at += 3;
            continue;
        }
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if open == Some(depth) => {
                open = None;
                put(&mut out, Token::RParen);
                let frame = ["ROWS", "BETWEEN", "UNBOUNDED", "PRECEDING", "AND", "UNBOUNDED", "FOLLOWING"];
                frame.into_iter().for_each(|word| put(&mut out, Token::make_keyword(word)));
                depth -= 1;
            }
            Token::RParen => depth -= 1,
            _ => {}
        }
        out.push(token.clone());
        at += 1;
    }
    out
}

struct Spellings;

impl VisitorMut for Spellings {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let SetExpr::Select(select) = query.body.as_mut() else { return ControlFlow::Continue(()) };
        let mut ordered = Vec::new();
        if let Some(order) = &mut query.order_by
            && let OrderByKind::Expressions(keys) = &mut order.kind
        {
            ordered.extend(keys.iter_mut().map(|key| &mut key.expr));
        }
        done(in_select(select, ordered))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        done(in_select(select, Vec::new()))
    }
}

fn done(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

/// The part of a window that a function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Both ends.
    Whole,
    Start,
    End,
    /// The last millisecond of the window.
    Rowtime,
}

/// A window as it was written.
#[derive(Clone, Debug)]
struct Window {
    kind: Kind,
    time: Expr,
    /// The lengths in the order of the table function's arguments.
    lengths: Vec<Expr>,
    /// The key of a session; none for the other groups.
    keys: Option<Vec<Expr>>,
    /// The name of which the window's ends are fields, such as `window`.
    name: Option<&'static str>,
}

impl Window {
    /// Returns a text that identifies the window.
    fn text(&self) -> String {
        let list = |all: &[Expr]| all.iter().map(|one| one.to_string()).collect::<Vec<_>>().join(", ");
        let keys = self.keys.as_deref().map(list).unwrap_or_default();
        format!("{}({}, {}) {keys}", self.kind.name(), self.time, list(&self.lengths)).to_lowercase()
    }
}

/// Rewrites a SELECT and its sort keys.
fn in_select(select: &mut Select, mut ordered: Vec<&mut Expr>) -> Result<()> {
    window_time::rewrite(select, &mut ordered)?;
    let mut window = None;
    visit_all(select, &mut ordered, |expr| find(expr, &mut window))?;
    let Some(window) = window else { return Ok(()) };
    if let GroupByExpr::Expressions(groups, _) = &mut select.group_by {
        let mut grouped = Vec::with_capacity(groups.len() + 1);
        for group in groups.drain(..) {
            match &group {
                _ if part_of(&group, window.name)? == Some(Part::Whole) => {
                    grouped.extend([column(WINDOW_START), column(WINDOW_END)]);
                }
                _ => grouped.push(group),
            }
        }
        *groups = grouped;
    }
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) = item
            && let Some(part) = part_of(expr, window.name)?
            && let Some(name) = window.name
        {
            let name = match part {
                Part::Whole => name,
                Part::Start => "start",
                Part::End | Part::Rowtime => "end",
            };
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: quoted(name) };
        }
    }
    visit_all(select, &mut ordered, |expr| replace(expr, window.name))?;
    put_into_windows(select, window)
}

/// Visits all expressions of a SELECT over the rows of its FROM.
pub(super) fn visit_all(
    select: &mut Select,
    ordered: &mut [&mut Expr],
    each: impl FnMut(&mut Expr) -> Result<()>,
) -> Result<()> {
    let visitor = &mut Outside { each, depth: 0 };
    let mut visited = walk_mut(&mut select.group_by, visitor);
    if visited.is_continue() {
        visited = walk_mut(&mut select.projection, visitor);
    }
    if visited.is_continue() {
        visited = walk_mut(&mut select.having, visitor);
    }
    if visited.is_continue() {
        visited = walk_mut(&mut select.qualify, visitor);
    }
    for key in ordered {
        if visited.is_continue() {
            visited = walk_mut(*key, visitor);
        }
    }
    match visited {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Visits expressions, but not the queries in them.
struct Outside<F> {
    each: F,
    /// The number of enclosing queries.
    depth: usize,
}

impl<F: FnMut(&mut Expr) -> Result<()>> VisitorMut for Outside<F> {
    type Break = Error;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        done((self.each)(expr))
    }
}

/// Finds the window of a SELECT.
fn find(expr: &Expr, found: &mut Option<Window>) -> Result<()> {
    let Expr::Function(function) = expr else { return Ok(()) };
    let window = match gap(function)? {
        Some(window) => window,
        None => match called(function)? {
            Some((window, _)) => window,
            None => return Ok(()),
        },
    };
    match found {
        Some(known) if known.text() != window.text() => Err(Error::unsupported(
            "more than one window of event time in a SELECT",
        )
        .hint("Put the rows into the windows one after the other: FROM TUMBLE((SELECT … FROM HOP(…)), …).")),
        Some(known) => {
            known.name = known.name.or(window.name);
            Ok(())
        }
        None => {
            *found = Some(window);
            Ok(())
        }
    }
}

/// Replaces calls by a window's columns.
fn replace(expr: &mut Expr, name: Option<&'static str>) -> Result<()> {
    if let Some(part) = part_of(expr, name)? {
        *expr = match part {
            Part::Whole => {
                parsed(&format!("named_struct('start', \"{WINDOW_START}\", 'end', \"{WINDOW_END}\")"))?
            }
            Part::Start => column(WINDOW_START),
            Part::End => column(WINDOW_END),
            Part::Rowtime => parsed(&format!("\"{WINDOW_END}\" - INTERVAL '1 millisecond'"))?,
        };
    } else if let Expr::Function(function) = expr
        && let Some(spec) = session_spec(function)
    {
        spec.order_by.pop();
        spec.partition_by.push(column(WINDOW_START));
    }
    Ok(())
}

/// Returns the part of a window that an expression means: a call, `window(…).start`, or `window.start`.
fn part_of(expr: &Expr, name: Option<&str>) -> Result<Option<Part>> {
    let field = |field: &Ident| match fold(field).as_str() {
        "start" => Some(Part::Start),
        "end" => Some(Part::End),
        _ => None,
    };
    Ok(match expr {
        Expr::Function(function) => called(function)?.map(|(_, part)| part),
        Expr::Nested(inner) => part_of(inner, name)?,
        Expr::Identifier(first) => name.filter(|name| fold(first) == *name).map(|_| Part::Whole),
        Expr::CompoundIdentifier(parts) => match (parts.as_slice(), name) {
            ([first, last], Some(name)) if fold(first) == name => field(last),
            _ => None,
        },
        Expr::CompoundFieldAccess { root, access_chain } => match access_chain.as_slice() {
            [AccessExpr::Dot(Expr::Identifier(last))] => {
                part_of(root, None)?.filter(|part| *part == Part::Whole).and_then(|_| field(last))
            }
            _ => None,
        },
        _ => None,
    })
}

/// Returns the window that a call names, and the part that the call returns.
fn called(function: &Function) -> Result<Option<(Window, Part)>> {
    let [_] = function.name.0.as_slice() else { return Ok(None) };
    let Some(name) = last_name(&function.name).filter(|_| function.over.is_none()) else { return Ok(None) };
    let (kind, part, spark) = match name.split_once('_') {
        _ if name == "window" => (Kind::Tumble, Part::Whole, Some("window")),
        _ if name == "session_window" => (Kind::Session, Part::Whole, Some("session_window")),
        Some((kind, part)) => {
            let part = match part {
                "start" => Part::Start,
                "end" => Part::End,
                "rowtime" => Part::Rowtime,
                _ => return Ok(None),
            };
            let Some(kind) = grouping(kind) else { return Ok(None) };
            (kind, part, None)
        }
        None => {
            let Some(kind) = grouping(&name) else { return Ok(None) };
            (kind, Part::Whole, None)
        }
    };
    let mut arguments = arguments(function).filter(|arguments| arguments.len() > 1).ok_or_else(|| {
        Error::invalid(format!("{name} takes a time and lengths of time")).hint(kind.usage())
    })?;
    let time = arguments.remove(0);
    let mut kind = kind;
    if name == "window" && arguments.len() > 1 {
        // The size comes first.
        kind = Kind::Hop;
        arguments.swap(0, 1);
    }
    Ok(Some((Window { kind, time, lengths: arguments, keys: None, name: spark }, part)))
}

/// Returns the kind of a function that may appear in GROUP BY.
fn grouping(name: &str) -> Option<Kind> {
    Kind::of(name).filter(|kind| *kind != Kind::Cumulate)
}

fn arguments(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let argument = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(argument).collect()
}

fn is_gap(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(function) if last_name(&function.name).as_deref() == Some(SESSION_GAP))
}

/// Returns a function's OVER clause if it ends with SESSION WITH GAP.
fn session_spec(function: &mut Function) -> Option<&mut WindowSpec> {
    match &mut function.over {
        Some(WindowType::WindowSpec(spec)) if spec.order_by.last().is_some_and(|key| is_gap(&key.expr)) => {
            Some(spec)
        }
        _ => None,
    }
}

/// Returns the sessions of a function's OVER clause.
fn gap(function: &Function) -> Result<Option<Window>> {
    let Some(WindowType::WindowSpec(spec)) = &function.over else { return Ok(None) };
    let unordered = || {
        Error::invalid("SESSION WITH GAP needs rows in the order of their time")
            .hint("Write OVER (PARTITION BY k ORDER BY ts SESSION WITH GAP INTERVAL '5 minutes').")
    };
    let (time, gap) = match spec.order_by.as_slice() {
        [time, .., gap] if is_gap(&gap.expr) => (time, gap),
        [gap] if is_gap(&gap.expr) => return Err(unordered()),
        _ if spec.partition_by.last().is_some_and(is_gap) => return Err(unordered()),
        _ => return Ok(None),
    };
    let Expr::Function(gap) = &gap.expr else { return Ok(None) };
    let lengths = arguments(gap).unwrap_or_default();
    let keys = Some(spec.partition_by.clone());
    Ok(Some(Window { kind: Kind::Session, time: time.expr.clone(), lengths, keys, name: None }))
}

fn column(name: &str) -> Expr {
    Expr::Identifier(quoted(name))
}

pub(super) fn parsed(text: &str) -> Result<Expr> {
    let parsed = Parser::new(&DIALECT).try_with_sql(text).and_then(|mut parser| parser.parse_expr());
    parsed.map_err(|error| Error::bug(error.to_string()))
}

/// Wraps the FROM of a SELECT in a window's table function.
fn put_into_windows(select: &mut Select, window: Window) -> Result<()> {
    if select.from.is_empty() {
        return Err(Error::invalid(format!("{} without rows to put into windows", window.kind.name()))
            .hint("Name a relation in FROM."));
    }
    for item in &mut select.projection {
        if let SelectItem::Wildcard(options) = item {
            let names = [WINDOW_START.to_string(), WINDOW_END.to_string()];
            *options = exclude(std::mem::take(options), &names);
        }
    }
    let mut arguments = Vec::new();
    if window.kind == Kind::Session {
        let keys = match window.keys {
            Some(keys) => keys,
            None => other_groups(select)?,
        };
        if !keys.is_empty() {
            arguments.push(syntax::keyed(keys));
        }
    }
    let mut inner = rows()?;
    let below = select_of(&mut inner)?;
    below.from = std::mem::take(&mut select.from);
    if window.kind == Kind::Session {
        below.selection = select.selection.take();
    }
    arguments.insert(0, Expr::Subquery(Box::new(inner)));
    arguments.push(window.time);
    arguments.extend(window.lengths);
    let name = ObjectName::from(vec![Ident::new(window.kind.name())]);
    select.from = vec![plain_from(syntax::table(name, arguments))];
    Ok(())
}

/// Parses `SELECT * FROM x`.
fn rows() -> Result<Query> {
    let parsed =
        Parser::new(&DIALECT).try_with_sql("SELECT * FROM x").and_then(|mut parser| parser.parse_query());
    Ok(*parsed.map_err(|error| Error::bug(error.to_string()))?)
}

/// Returns the groups of a SELECT other than the window.
fn other_groups(select: &Select) -> Result<Vec<Expr>> {
    let GroupByExpr::Expressions(groups, _) = &select.group_by else {
        return Err(Error::unsupported("GROUP BY ALL with a session"));
    };
    let ends = [column(WINDOW_START), column(WINDOW_END)];
    let mut keys = Vec::with_capacity(groups.len());
    for group in groups.iter().filter(|group| !ends.contains(group)) {
        let place = match group {
            Expr::Value(value) => match &value.value {
                Value::Number(place, _) => place.parse::<usize>().ok(),
                _ => None,
            },
            Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_) => {
                return Err(Error::unsupported("grouping sets with a session")
                    .hint("FROM SESSION(t PARTITION BY k, ts, gap) says which rows are in one session."));
            }
            _ => None,
        };
        let item = place.and_then(|place| select.projection.get(place.checked_sub(1)?));
        keys.push(match item {
            Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => expr.clone(),
            _ => group.clone(),
        });
    }
    Ok(keys.into_iter().filter(|key| !ends.contains(key)).collect())
}
