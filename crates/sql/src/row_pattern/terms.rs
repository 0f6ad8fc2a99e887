//! The parts of DEFINE and MEASURES that refer to the rows of a match: `a.price`, `PREV(price)`, `FINAL
//! LAST(b.ts, 1)`, `sum(a.price)`, `CLASSIFIER()`.
//!
//! Each becomes a [`Term`], and a column replaces it whose name users can't write. The rest is an ordinary
//! expression over one row.

use std::ops::ControlFlow;

use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr as ExprTree, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    ObjectName, Query, Value, VisitMut, VisitorMut,
};

use crate::ast_walk::walk_mut;
use crate::error::{Error, Result};
use crate::hidden_columns::{fold, last_name};
use crate::suggestion;

/// Some rows of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    /// The variables that the rows are mapped to; none for all rows.
    pub(super) among: Option<Vec<usize>>,
    /// True for the whole match (FINAL), false for the rows up to the current one (RUNNING).
    pub(super) whole: bool,
}

/// A row, located relative to rows of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowPosition {
    pub(super) rows: Rows,
    /// True if rows are counted backwards from the last one.
    pub(super) last: bool,
    /// The number of rows to skip.
    pub(super) skip: usize,
    /// The offset in rows of the partition: positive for NEXT, negative for PREV.
    pub(super) shift: i64,
}

impl RowPosition {
    /// Returns the place of the last row so far.
    fn here() -> RowPosition {
        RowPosition { rows: Rows { among: None, whole: false }, last: true, skip: 0, shift: 0 }
    }
}

/// A part of an expression that refers to a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// The value with this index, at a row.
    Value(usize, RowPosition),
    /// The variable that a row is mapped to.
    Classifier(RowPosition),
    /// The match's number in its partition.
    Number,
    /// The result of the call with this index, over some rows.
    Aggregate(usize, Rows),
}

/// An expression over the columns of its terms.
pub(super) struct Formula {
    /// The name in errors.
    pub(super) name: String,
    pub(super) tree: ExprTree,
    pub(super) terms: Vec<Term>,
}

/// Returns the name of a term's column.
pub(super) fn term_name(at: usize) -> String {
    format!("!{at}")
}

/// The names that may qualify columns: the pattern's variables, and SUBSETs of them.
pub(super) struct PatternVariables {
    pub(super) variables: Vec<String>,
    pub(super) subsets: Vec<(String, Vec<usize>)>,
}

impl PatternVariables {
    /// Returns the variables of a name.
    pub(super) fn get(&self, name: &str) -> Option<Vec<usize>> {
        let variable = self.variables.iter().position(|known| known == name).map(|at| vec![at]);
        variable.or_else(|| self.subsets.iter().find(|(known, _)| known == name).map(|(_, of)| of.clone()))
    }

    /// Returns the variables of a name, or an error if it is unknown.
    pub(super) fn expect(&self, name: &str, whence: &str) -> Result<Vec<usize>> {
        self.get(name).ok_or_else(|| {
            let all = self.variables.iter().chain(self.subsets.iter().map(|(name, _)| name));
            Error::invalid(format!(
                "MATCH_RECOGNIZE: {whence} names \"{name}\", which is no variable of PATTERN"
            ))
            .maybe_hint(suggestion::hint(name, "variables", all.map(String::as_str)))
        })
    }
}

/// Reads expressions, and collects the values to compute for each row of a partition.
pub(super) struct TermReader<'a> {
    pub(super) context: &'a mut dyn RelationPlannerContext,
    pub(super) schema: &'a DFSchema,
    pub(super) names: &'a PatternVariables,
    /// Expressions over the input's columns.
    pub(super) values: Vec<Expr>,
    /// Calls of aggregate functions over them.
    pub(super) calls: Vec<Expr>,
}

impl TermReader<'_> {
    /// Reads an expression of DEFINE or MEASURES. `finals` allows FINAL, as in MEASURES.
    pub(super) fn formula(&mut self, name: String, mut tree: ExprTree, finals: bool) -> Result<Formula> {
        let mut terms = Terms { reader: self, name: &name, finals, terms: Vec::new(), inner: false };
        match walk_mut(&mut tree, &mut terms) {
            ControlFlow::Continue(()) => {
                let terms = terms.terms;
                Ok(Formula { name, tree, terms })
            }
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// Returns the index of the value of an expression over the input's columns.
    pub(super) fn value(&mut self, tree: ExprTree) -> Result<usize> {
        let value = self.context.sql_to_expr(tree, self.schema)?;
        Ok(self.number_of(value))
    }

    /// Returns the index of such a value.
    pub(super) fn number_of(&mut self, value: Expr) -> usize {
        number(&mut self.values, value)
    }
}

fn number(all: &mut Vec<Expr>, one: Expr) -> usize {
    all.iter().position(|known| *known == one).unwrap_or_else(|| {
        all.push(one);
        all.len() - 1
    })
}

/// Replaces terms by columns.
struct Terms<'a, 'b> {
    reader: &'a mut TermReader<'b>,
    name: &'a str,
    finals: bool,
    terms: Vec<Term>,
    /// True if the next visited node is part of a term already.
    inner: bool,
}

impl VisitorMut for Terms<'_, '_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        ControlFlow::Break(Error::unsupported("a subquery in DEFINE or MEASURES of MATCH_RECOGNIZE").hint(
            "Join its result to the input first, as in FROM (SELECT … FROM t JOIN u …) MATCH_RECOGNIZE (…).",
        ))
    }

    fn pre_visit_expr(&mut self, tree: &mut ExprTree) -> ControlFlow<Error> {
        if std::mem::take(&mut self.inner) {
            return ControlFlow::Continue(());
        }
        match self.replace(tree) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Terms<'_, '_> {
    fn replace(&mut self, tree: &mut ExprTree) -> Result<()> {
        let term = match tree {
            ExprTree::Function(function) => match self.call(function)? {
                Some(term) => term,
                None => return Ok(()),
            },
            ExprTree::Identifier(_) | ExprTree::CompoundIdentifier(_) => self.plain(tree.clone())?,
            ExprTree::CompoundFieldAccess { root, access_chain } => {
                let ExprTree::Identifier(first) = root.as_ref().clone() else { return Ok(()) };
                let known = self.reader.names.get(&fold(&first)).is_some();
                let column = match access_chain.first() {
                    Some(AccessExpr::Dot(ExprTree::Identifier(column))) if known => {
                        let parts = vec![first, column.clone()];
                        access_chain.remove(0);
                        ExprTree::CompoundIdentifier(parts)
                    }
                    _ => ExprTree::Identifier(first),
                };
                let term = self.plain(column)?;
                **root = self.column(term);
                self.inner = true;
                return Ok(());
            }
            ExprTree::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                return Err(Error::unsupported("a parameter in DEFINE or MEASURES of MATCH_RECOGNIZE"));
            }
            _ => return Ok(()),
        };
        *tree = self.column(term);
        Ok(())
    }

    fn column(&mut self, term: Term) -> ExprTree {
        let at = self.terms.iter().position(|known| *known == term).unwrap_or_else(|| {
            self.terms.push(term);
            self.terms.len() - 1
        });
        ExprTree::Identifier(Ident::with_quote('"', term_name(at)))
    }

    /// Reads a plain column, at the last row so far.
    fn plain(&mut self, tree: ExprTree) -> Result<Term> {
        self.at(tree, RowPosition::here())
    }

    /// Reads an expression at a place. Its columns' variables select the rows.
    fn at(&mut self, tree: ExprTree, mut place: RowPosition) -> Result<Term> {
        let mut tree = without_parentheses(tree);
        if let ExprTree::Function(function) = &tree
            && last_name(&function.name).as_deref() == Some("classifier")
        {
            place.rows.among = self.classified(function)?;
            return Ok(Term::Classifier(place));
        }
        place.rows.among = self.strip(&mut tree)?;
        Ok(Term::Value(self.reader.value(tree)?, place))
    }

    /// Removes variables from the columns of an expression, and returns them.
    fn strip(&self, tree: &mut impl VisitMut) -> Result<Option<Vec<usize>>> {
        let mut strip =
            Strip { names: self.reader.names, schema: self.reader.schema, found: None, inner: false };
        if let ControlFlow::Break(error) = walk_mut(tree, &mut strip) {
            return Err(error);
        }
        match strip.found.flatten() {
            Some(name) => Ok(Some(self.reader.names.expect(&name, self.name)?)),
            None => Ok(None),
        }
    }

    fn call(&mut self, function: &Function) -> Result<Option<Term>> {
        let Some(written) = called(&function.name).filter(|_| function.name.0.len() == 1) else {
            return Ok(None);
        };
        let (whole, name) = match written.split_once(' ') {
            Some(("final", name)) => (true, name),
            Some(("running", name)) => (false, name),
            _ => (false, written.as_str()),
        };
        if whole && !self.finals {
            return Err(self.wrong(format!("FINAL {name} can't be used before the match is complete")));
        }
        let term = match name {
            "prev" | "next" | "first" | "last" => {
                let (place, inner) = self.place(function, name, whole)?;
                self.at(inner, place)?
            }
            "classifier" => self.at(ExprTree::Function(function.clone()), RowPosition::here())?,
            "match_number" => Term::Number,
            name if self.is_aggregate(name) => self.aggregate(function, name, whole)?,
            name if name != written => {
                return Err(self
                    .wrong(format!("FINAL and RUNNING stand before {name}"))
                    .hint("They are only allowed before FIRST, LAST and aggregate functions."));
            }
            _ => return Ok(None),
        };
        Ok(Some(term))
    }

    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::invalid(format!("MATCH_RECOGNIZE: in {}, {what}", self.name))
    }

    fn is_aggregate(&self, name: &str) -> bool {
        let provider = self.reader.context.context_provider();
        provider.get_function_meta(name).is_none() && provider.get_aggregate_meta(name).is_some()
    }

    /// Returns the place of PREV, NEXT, FIRST or LAST, and the expression there.
    fn place(&mut self, function: &Function, name: &str, whole: bool) -> Result<(RowPosition, ExprTree)> {
        let shifts = matches!(name, "prev" | "next");
        let (inner, count) = match arguments(function).as_deref() {
            Some([inner]) => (inner.clone(), usize::from(shifts)),
            Some([inner, count]) => (inner.clone(), self.count(name, count)?),
            _ => {
                return Err(self
                    .wrong(format!("{name} takes a value and a number of rows"))
                    .hint("Write PREV(price), NEXT(price, 2), FIRST(a.price) or LAST(a.price, 1)."));
            }
        };
        if !shifts {
            let rows = Rows { among: None, whole };
            return Ok((RowPosition { rows, last: name == "last", skip: count, shift: 0 }, inner));
        }
        let inner = without_parentheses(inner);
        let (mut place, inner) = match &inner {
            ExprTree::Function(within) => match called(&within.name).as_deref() {
                Some(written) => {
                    let (whole, name) = match written.split_once(' ') {
                        Some((semantics, name)) => (semantics == "final", name),
                        None => (false, written),
                    };
                    match name {
                        "first" | "last" if !whole || self.finals => self.place(within, name, whole)?,
                        _ => (RowPosition::here(), inner),
                    }
                }
                None => (RowPosition::here(), inner),
            },
            _ => (RowPosition::here(), inner),
        };
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        place.shift = if name == "prev" { -count } else { count };
        Ok((place, inner))
    }

    fn count(&self, name: &str, tree: &ExprTree) -> Result<usize> {
        let number = match tree {
            ExprTree::Value(value) => match &value.value {
                Value::Number(number, _) => number.parse::<usize>().ok(),
                _ => None,
            },
            _ => None,
        };
        number.ok_or_else(|| {
            self.wrong(format!("{name} goes {tree} rows, but a whole number from zero was expected"))
        })
    }

    /// Returns the variables to which CLASSIFIER is restricted.
    fn classified(&self, function: &Function) -> Result<Option<Vec<usize>>> {
        match arguments(function).as_deref() {
            Some([]) => Ok(None),
            Some([ExprTree::Identifier(name)]) => {
                Ok(Some(self.reader.names.expect(&fold(name), "CLASSIFIER")?))
            }
            _ => Err(self.wrong("CLASSIFIER takes a variable or nothing")),
        }
    }

    fn aggregate(&mut self, function: &Function, name: &str, whole: bool) -> Result<Term> {
        let mut call = function.clone();
        call.name = vec![Ident::new(name)].into();
        let mut found = None;
        if let FunctionArguments::List(list) = &mut call.args {
            if !list.clauses.is_empty() {
                return Err(self.unsupported("clauses within the call of an aggregate"));
            }
            for argument in &mut list.args {
                if let FunctionArg::Unnamed(argument) = argument
                    && let FunctionArgExpr::QualifiedWildcard(of) = argument
                {
                    found = last_name(of);
                    *argument = FunctionArgExpr::Wildcard;
                }
            }
        }
        if call.filter.is_some() || !call.within_group.is_empty() || call.over.is_some() {
            return Err(self.unsupported("FILTER, WITHIN GROUP and OVER"));
        }
        let among = match found {
            Some(name) => Some(self.reader.names.expect(&name, self.name)?),
            None => self.strip(&mut call.args)?,
        };
        let call = self.reader.context.sql_to_expr(ExprTree::Function(call), self.reader.schema)?;
        let call = number(&mut self.reader.calls, call.unalias());
        Ok(Term::Aggregate(call, Rows { among, whole }))
    }

    fn unsupported(&self, what: &str) -> Error {
        Error::unsupported(format!("{what} in DEFINE or MEASURES of MATCH_RECOGNIZE"))
    }
}

/// Returns the arguments of a plain call.
fn arguments(function: &Function) -> Option<Vec<ExprTree>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let argument = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(tree)) => Some(tree.clone()),
        _ => None,
    };
    list.args.iter().map(argument).collect()
}

/// Removes variables from columns. All columns of an expression must have the same variable, or none.
struct Strip<'a> {
    names: &'a PatternVariables,
    schema: &'a DFSchema,
    /// The variable, if a column was found.
    found: Option<Option<String>>,
    /// True if the next visited node is part of the last one.
    inner: bool,
}

impl Strip<'_> {
    fn note(&mut self, name: Option<String>) -> Result<()> {
        match self.found.replace(name.clone()) {
            Some(before) if before != name => {
                let text = |name: Option<String>| name.unwrap_or_else(|| "all rows".into());
                let (before, name) = (text(before), text(name));
                Err(Error::invalid(format!(
                    "MATCH_RECOGNIZE: one value is computed from rows of \"{before}\" and of \"{name}\""
                ))
                .hint("Compute each separately: LAST(a.price) + LAST(b.price)."))
            }
            _ => Ok(()),
        }
    }

    fn take_off(&mut self, tree: &mut ExprTree) -> Result<()> {
        match tree {
            ExprTree::Identifier(_) => self.note(None),
            ExprTree::CompoundIdentifier(parts) => {
                let Some(first) = parts.first().map(fold) else { return Ok(()) };
                if self.names.get(&first).is_none() {
                    // A field of a column. A column qualified by the table's name doesn't refer to a match.
                    return match self.schema.has_column_with_unqualified_name(&first) {
                        true => self.note(None),
                        false => self.names.expect(&first, &format!("{tree}")).map(drop),
                    };
                }
                parts.remove(0);
                if let [only] = parts.as_slice() {
                    *tree = ExprTree::Identifier(only.clone());
                }
                self.note(Some(first))
            }
            ExprTree::CompoundFieldAccess { root, access_chain } => {
                let ExprTree::Identifier(first) = root.as_ref() else { return Ok(()) };
                let first = fold(first);
                let Some(AccessExpr::Dot(column)) = access_chain.first().cloned() else { return Ok(()) };
                if self.names.get(&first).is_none() {
                    return Ok(());
                }
                access_chain.remove(0);
                **root = column;
                self.inner = true;
                self.note(Some(first))
            }
            ExprTree::Function(function) => {
                let name = called(&function.name).unwrap_or_default();
                match name.split_once(' ').map_or(name.as_str(), |(_, name)| name) {
                    name @ ("prev" | "next" | "first" | "last" | "classifier" | "match_number") => Err(
                        Error::invalid(format!("MATCH_RECOGNIZE: {name} is nested in another expression"))
                            .hint("PREV and NEXT may directly contain FIRST or LAST, and nothing else."),
                    ),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

impl VisitorMut for Strip<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        ControlFlow::Break(Error::unsupported("a subquery in DEFINE or MEASURES of MATCH_RECOGNIZE"))
    }

    fn pre_visit_expr(&mut self, tree: &mut ExprTree) -> ControlFlow<Error> {
        if std::mem::take(&mut self.inner) {
            return ControlFlow::Continue(());
        }
        match self.take_off(tree) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn without_parentheses(tree: ExprTree) -> ExprTree {
    match tree {
        ExprTree::Nested(inner) => without_parentheses(*inner),
        other => other,
    }
}

/// Returns the name of a function. By now, `first` and `last` of a row's value are aggregates.
fn called(name: &ObjectName) -> Option<String> {
    let name = last_name(name)?;
    Some(match name.as_str() {
        "first_value" => "first".into(),
        "last_value" => "last".into(),
        _ => name,
    })
}
