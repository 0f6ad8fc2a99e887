//! Finds `LAST(…)` and `CHANGES(…)` in FROM clauses and replaces them by the names of their relations.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Interval, ObjectName, Query, TableAlias,
    TableFactor, Value, VisitorMut,
};

use super::{BatchQuery, Window, WindowKind, WindowOf, update_state};
use crate::ast_walk::walk_mut;
use crate::context::unknown_relation;
use crate::dml::tree::named_table;
use crate::error::{Error, Result};
use crate::hidden_columns::{fold, is_hidden};
use crate::literals::interval;
use crate::planner::Planner;
use crate::relation::{Relation, Relations, RoutineCatalog, SearchPath, catalog_name};

/// The column of `CHANGES(…)` that names the change of a row.
pub const OPERATION: &str = "_op";

/// A window, and its relation for the planner.
pub(super) type Planned = (Window, Relation);

/// The catalog's relations and a query's windows.
pub(super) struct WithWindows<'a> {
    relations: &'a dyn Relations,
    windows: Vec<(String, Relation)>,
}

impl<'a> WithWindows<'a> {
    pub(super) fn new(relations: &'a dyn Relations, windows: &[Planned]) -> WithWindows<'a> {
        let windows = windows.iter().map(|(window, relation)| (window.name.clone(), relation.clone()));
        WithWindows { relations, windows: windows.collect() }
    }
}

impl Relations for WithWindows<'_> {
    fn get(&self, name: &str) -> Option<Relation> {
        let window = self.windows.iter().find(|(window, _)| window == name);
        window.map(|(_, relation)| relation.clone()).or_else(|| self.relations.get(name))
    }

    fn path(&self) -> Option<&dyn SearchPath> {
        self.relations.path()
    }

    fn names(&self, schema: Option<&str>) -> Vec<String> {
        self.relations.names(schema)
    }

    fn system(&self, schema: &str, name: &str) -> Option<Relation> {
        self.relations.system(schema, name)
    }

    fn is_scalar(&self, name: &str) -> bool {
        self.relations.is_scalar(name)
    }

    fn event_time(&self, name: &str) -> Option<usize> {
        self.relations.event_time(name)
    }

    fn function(&self, name: &str, arguments: &[String]) -> Result<Option<Relation>> {
        self.relations.function(name, arguments)
    }

    fn routine_catalog(&self) -> &dyn RoutineCatalog {
        self.relations.routine_catalog()
    }
}

/// Replaces each window of a query by the name of its relation.
pub(super) fn take_windows(
    planner: &Planner,
    tree: &mut Query,
    relations: &dyn Relations,
) -> Result<Vec<Planned>> {
    let mut visitor = Take { planner, relations, windows: Vec::new() };
    match walk_mut(tree, &mut visitor) {
        ControlFlow::Continue(()) => Ok(visitor.windows),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Checks that all windows have one slide, since they are evaluated together. A window over windows must
/// slide by a multiple of theirs.
pub(super) fn check_slides(windows: &[Window]) -> Result<()> {
    let mut first: Option<Option<i64>> = None;
    for window in windows {
        let (length, slide) = match (window.kind, window.slide()) {
            (WindowKind::Last { length, .. }, slide) => (Some(length), slide),
            (WindowKind::Batch, Some(slide)) => (None, Some(slide)),
            (WindowKind::Changes | WindowKind::Batch, _) => continue,
        };
        if let Some(other) = *first.get_or_insert(slide)
            && let Some(slide) = slide
            && other != slide
        {
            return Err(Error::invalid(format!(
                "windows with slides of {} and of {} in one query",
                length_text(other),
                length_text(slide)
            ))
            .hint("Joined relations are evaluated together: give all windows the same slide."));
        }
        if first.flatten().is_some() != slide.is_some() {
            return Err(Error::invalid("of the windows of one query, some have a slide and some have none")
                .hint("Joined relations are evaluated together: give all windows the same slide."));
        }
        let WindowOf::Query(of) = &window.of else { continue };
        let Some(below) = of.slide() else { continue };
        for (what, value) in [("length", length), ("slide", slide)] {
            if let Some(value) = value.filter(|value| value % below != 0) {
                return Err(Error::invalid(format!(
                    "the {what} of {} is {}, which is no multiple of {}, the slide of its input",
                    window.name,
                    length_text(value),
                    length_text(below)
                )));
            }
        }
    }
    Ok(())
}

const UNITS: &[(&str, i64)] = &[
    ("microsecond", 1),
    ("millisecond", 1_000),
    ("second", 1_000_000),
    ("minute", 60_000_000),
    ("hour", 3_600_000_000),
    ("day", 86_400_000_000),
];

/// Renders a length of time in microseconds in words: `30 seconds`.
pub fn length_text(micros: i64) -> String {
    let unit = UNITS.iter().rev().find(|(_, unit)| micros % unit == 0).copied();
    let (name, unit) = unit.unwrap_or(UNITS[0]);
    let count = micros / unit;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

struct Take<'a> {
    planner: &'a Planner,
    relations: &'a dyn Relations,
    windows: Vec<Planned>,
}

impl VisitorMut for Take<'_> {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        match self.take(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// The input of a window, and its default alias.
struct Input {
    of: WindowOf,
    relation: Relation,
    text: String,
    alias: Ident,
}

impl Take<'_> {
    fn take(&mut self, factor: &mut TableFactor) -> Result<()> {
        if let TableFactor::Derived { .. } = factor {
            return self.update_state(factor);
        }
        let TableFactor::Table { name, alias, args, .. } = factor else { return Ok(()) };
        let (Some(called), Some(given)) = (function(name), args.as_ref()) else { return Ok(()) };
        let arguments = given.args.iter().map(argument).collect::<Result<Vec<&Expr>>>()?;
        let (planned, default) = match called {
            Called::Last => self.last(&arguments)?,
            Called::Changes => self.changes(&arguments)?,
        };
        *args = None;
        *name = ObjectName::from(vec![Ident::with_quote('"', &planned.0.name)]);
        alias.get_or_insert_with(|| TableAlias {
            explicit: true,
            name: default,
            columns: Vec::new(),
            at: None,
        });
        if !self.windows.iter().any(|(window, _)| window.name == planned.0.name) {
            self.windows.push(planned);
        }
        Ok(())
    }

    /// Replaces UPDATE_STATE, or its fold's input, in the place of a query in parentheses.
    fn update_state(&mut self, factor: &mut TableFactor) -> Result<()> {
        let TableFactor::Derived { subquery, alias, .. } = factor else { return Ok(()) };
        if let Some(text) = update_state::call(subquery) {
            let name = self.batch_of(&subquery.to_string(), format!("UPDATE_STATE({text})"))?;
            let alias = alias.take();
            *factor = window_factor(name, alias);
            return Ok(());
        }
        match update_state::input(subquery) {
            Some(input) if !self.is_relation(input) => {
                let name = self.batch_of(&format!("SELECT * FROM {input}"), format!("({input})"))?;
                let alias = update_state::alias(input);
                *input = window_factor(name, alias);
            }
            _ => {}
        }
        Ok(())
    }

    /// True if a factor is the name of a relation that isn't a view.
    fn is_relation(&self, factor: &TableFactor) -> bool {
        let TableFactor::Table { name, args: None, .. } = factor else { return false };
        let name = name.0.last().and_then(|part| part.as_ident()).map(fold);
        name.is_some_and(|name| matches!(self.relations.get(&name), Some(Relation::Rows { .. })))
    }

    /// Returns the name of a window over the batches of a query, and adds the window if it is new.
    fn batch_of(&mut self, sql: &str, name: String) -> Result<String> {
        if !self.windows.iter().any(|(window, _)| window.name == name) {
            let Input { of, relation, .. } = self.over(sql, String::new(), Ident::new("last"))?;
            let window = Window { name: name.clone(), of, kind: WindowKind::Batch };
            self.windows.push((window, relation));
        }
        Ok(name)
    }

    fn last(&self, arguments: &[&Expr]) -> Result<(Planned, Ident)> {
        let (of, length, slide) = match arguments {
            [of, length] => (of, length, None),
            [of, length, slide] => (of, length, Some(slide)),
            _ => {
                return Err(Error::invalid(
                    "LAST takes a relation, a length and, if it isn't each batch, a slide: LAST(s, INTERVAL '30 \
                     seconds', INTERVAL '10 seconds')",
                ));
            }
        };
        let (length, slide) =
            (micros("length", length)?, slide.map(|slide| micros("slide", slide)).transpose()?);
        let Input { of, relation, text, alias } = self.input(of)?;
        let below = if let WindowOf::Query(query) = &of { query.slide() } else { None };
        let slide = slide.or(below);
        let every = slide.map_or_else(String::new, |slide| format!(", {}", length_text(slide)));
        let name = format!("LAST({text}, {}{every})", length_text(length));
        Ok(((Window { name, of, kind: WindowKind::Last { length, slide } }, relation), alias))
    }

    fn changes(&self, arguments: &[&Expr]) -> Result<(Planned, Ident)> {
        let [of] = arguments else {
            return Err(Error::invalid("CHANGES takes one argument, a relation: CHANGES(t)"));
        };
        let Input { of, relation, text, alias } = self.input(of)?;
        let (WindowOf::Relation(_), Relation::Rows { schema, .. }) = (&of, relation) else {
            return Err(Error::invalid(format!("CHANGES({text}) of a view or a query"))
                .hint("Create a stream or a materialized view from it, and read the changes of that."));
        };
        let batch = |field: &Field| is_hidden(field) && field.name().starts_with("_batch_");
        let fields = schema.fields().iter().map(|field| field.as_ref().clone());
        let (batch, own): (Vec<Field>, Vec<Field>) = fields.partition(batch);
        let mut columns = vec![Field::new(OPERATION, DataType::Utf8View, false)];
        columns.extend(own);
        columns.extend(batch);
        let relation = Relation::Rows { schema: Arc::new(Schema::new(columns)), key: None };
        let name = format!("CHANGES({text})");
        Ok(((Window { name, of, kind: WindowKind::Changes }, relation), alias))
    }

    fn input(&self, expr: &Expr) -> Result<Input> {
        let (full, name) = match expr {
            Expr::Identifier(name) => (ObjectName::from(vec![name.clone()]), name),
            Expr::CompoundIdentifier(names) if names.len() == 2 => {
                (ObjectName::from(names.clone()), &names[1])
            }
            Expr::Function(call) if function(&call.name).is_some() => {
                let alias = innermost(&call.args).unwrap_or_else(|| Ident::new("last"));
                return self.over(&format!("SELECT * FROM {expr}"), expr.to_string(), alias);
            }
            Expr::Subquery(query) => {
                return self.over(&query.to_string(), format!("({query})"), Ident::new("last"));
            }
            other => {
                return Err(Error::invalid(format!("LAST or CHANGES over {other}"))
                    .hint("Name a relation, or write a query in parentheses."));
            }
        };
        let text = catalog_name(&full, self.relations).unwrap_or_default();
        match self.relations.get(&text) {
            None | Some(Relation::Provided(_)) => Err(unknown_relation(&text, self.relations)),
            Some(Relation::View(_)) => self.over(&format!("SELECT * FROM {full}"), text, name.clone()),
            Some(Relation::Rows { schema, .. }) => {
                let relation = Relation::Rows { schema, key: None };
                Ok(Input { of: WindowOf::Relation(text.clone()), relation, text, alias: name.clone() })
            }
        }
    }

    /// Returns a window input over the results of a query per batch.
    fn over(&self, sql: &str, text: String, alias: Ident) -> Result<Input> {
        // A position in this text means nothing to the user.
        let query =
            self.planner.batch_query(sql, self.relations).map_err(|error| Error { span: None, ..error })?;
        let relation = Relation::Rows { schema: query.query.schema.clone(), key: None };
        Ok(Input { of: WindowOf::Query(Box::new(query)), relation, text, alias })
    }
}

/// Builds the FROM item of a window's name.
fn window_factor(name: String, as_name: Option<TableAlias>) -> TableFactor {
    let mut factor = named_table(ObjectName::from(vec![Ident::with_quote('"', name)]));
    if let TableFactor::Table { alias, .. } = &mut factor {
        *alias = as_name;
    }
    factor
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Called {
    Last,
    Changes,
}

fn function(name: &ObjectName) -> Option<Called> {
    let [part] = name.0.as_slice() else { return None };
    let name = part.as_ident().filter(|name| name.quote_style.is_none())?;
    match name.value.to_lowercase().as_str() {
        "last" => Some(Called::Last),
        "changes" => Some(Called::Changes),
        _ => None,
    }
}

/// Returns the relation within nested windows.
fn innermost(arguments: &FunctionArguments) -> Option<Ident> {
    let FunctionArguments::List(list) = arguments else { return None };
    match argument(list.args.first()?).ok()? {
        Expr::Identifier(name) => Some(name.clone()),
        Expr::Function(call) => innermost(&call.args),
        _ => None,
    }
}

fn argument(argument: &FunctionArg) -> Result<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
        other => Err(Error::invalid(format!("LAST and CHANGES take no argument such as {other}"))),
    }
}

/// Parses a length of time into microseconds.
fn micros(what: &str, expr: &Expr) -> Result<i64> {
    let wrong = || {
        Error::invalid(format!("the {what} of a window is {expr}, but a length of time was expected"))
            .hint("Write it as INTERVAL '30 seconds'.")
    };
    let text = |expr: &Expr| match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    let text = match expr {
        Expr::Interval(Interval { value, leading_field, last_field: None, .. }) => {
            let unit = leading_field.as_ref().map_or_else(String::new, |unit| format!(" {unit}"));
            text(value).map(|text| format!("{text}{unit}"))
        }
        Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)) => text(expr),
        _ => None,
    };
    let read = text.and_then(|text| interval::read(&text).ok()).ok_or_else(wrong)?;
    if read.months != 0 {
        return Err(Error::invalid(format!(
            "the {what} of a window is {expr}, but a month has no fixed length"
        ))
        .hint("Give it in days."));
    }
    let micros = i64::from(read.days) * 86_400_000_000 + read.nanoseconds / 1000;
    if micros <= 0 {
        return Err(Error::invalid(format!("the {what} of a window is {expr}, but it must be above zero")));
    }
    Ok(micros)
}

impl BatchQuery {
    /// Returns the queries below the windows, those that other queries read first.
    pub fn below(&self) -> impl Iterator<Item = (&str, &BatchQuery)> {
        self.windows.iter().filter_map(|window| match &window.of {
            WindowOf::Query(query) => Some((window.name.as_str(), query.as_ref())),
            WindowOf::Relation(_) => None,
        })
    }
}
