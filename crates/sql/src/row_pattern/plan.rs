//! Plans a parsed clause.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchema, DFSchemaRef};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    AfterMatchSkip, EmptyMatchesMode, Expr as ExprTree, FunctionArg, FunctionArgExpr, Ident, Measure,
    OrderByExpr, RowsPerMatch, SymbolDefinition, TableAlias, TableFactor,
};
use millstream_delta::has_equal_forms;

use super::clause::{Asked, Clause, Planned, Shows, Skip};
use super::compile::{Call, Compiler, columns, term_fields};
use super::function::function;
use super::pattern::Program;
use super::syntax::{ROWS, SUBSET, WITHIN};
use super::terms::{Formula, PatternVariables, Term, TermReader};
use crate::error::{Error, Result};
use crate::event_time;
use crate::functions::one_form;
use crate::hidden_columns::{fold, last_name};
use crate::planner::Planner;

/// The name of the list of matches below its unnesting.
const MATCH: &str = "!match";

/// Plans a clause, and returns its alias.
pub(super) fn plan(
    planner: &Planner,
    relation: TableFactor,
    context: &mut dyn RelationPlannerContext,
) -> Result<(LogicalPlan, Option<TableAlias>)> {
    let TableFactor::MatchRecognize {
        table,
        partition_by,
        order_by,
        measures,
        rows_per_match,
        after_match_skip,
        pattern,
        symbols,
        alias,
    } = relation
    else {
        return Err(Error::bug("a relation that is no MATCH_RECOGNIZE"));
    };
    let program = Program::new(&pattern)?;
    let defined = Defined::new(symbols, &program)?;
    let input = context.plan(subquery(*table))?;
    let schema = Arc::clone(input.schema());
    let mut written = Written {
        text: format!("PATTERN ({pattern})"),
        shows: shows(rows_per_match, &program)?,
        skip: skip(after_match_skip, &defined.names)?,
        program,
        partition: Vec::new(),
        order: Vec::new(),
    };
    for column in partition_by {
        written.partition.push(partition_column(column, &schema, context)?);
    }
    let names = &defined.names;
    let mut reader = TermReader { context, schema: &schema, names, values: Vec::new(), calls: Vec::new() };
    for key in order_by {
        written.order.push(order_key(key, &mut reader)?);
    }
    let within = match &defined.within {
        Some(length) => Some(within(length.clone(), &written.order, &mut reader)?),
        None => None,
    };
    let formulas = Formulas::new(measures, &defined.conditions, &mut reader)?;
    let (values, calls) = (reader.values, reader.calls);
    let taken = written.taken(&schema, &values, &calls);
    let planned = written.planned(planner, context, formulas, (values, calls, within), &taken, &schema)?;
    let clause = planned.ready(planner)?;
    Ok((with_matches(input, &written, clause, &taken)?, alias))
}

/// Unwraps a subquery that is the argument of the function [`ROWS`].
fn subquery(table: TableFactor) -> TableFactor {
    let TableFactor::Table { name, alias, args: Some(arguments), .. } = &table else { return table };
    match arguments.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(ExprTree::Subquery(query)))]
            if last_name(name).as_deref() == Some(ROWS) =>
        {
            let (subquery, alias) = (query.clone(), alias.clone());
            TableFactor::Derived { lateral: false, subquery, alias, sample: None }
        }
        _ => table,
    }
}

/// The content of DEFINE, SUBSET and WITHIN.
struct Defined {
    names: PatternVariables,
    /// The condition of each variable.
    conditions: Vec<Option<ExprTree>>,
    within: Option<ExprTree>,
}

impl Defined {
    fn new(symbols: Vec<SymbolDefinition>, program: &Program) -> Result<Defined> {
        let names = PatternVariables { variables: program.variables.clone(), subsets: Vec::new() };
        let conditions = names.variables.iter().map(|_| None).collect();
        let mut defined = Defined { names, conditions, within: None };
        for SymbolDefinition { symbol, definition } in symbols {
            match symbol.value.as_str() {
                SUBSET => defined.subset(definition)?,
                WITHIN => defined.within = Some(definition),
                _ => defined.condition(&fold(&symbol), definition)?,
            }
        }
        Ok(defined)
    }

    fn condition(&mut self, name: &str, definition: ExprTree) -> Result<()> {
        let variables = &self.names.variables;
        let Some(at) = variables.iter().position(|known| known == name) else {
            return Err(self.names.expect(name, "DEFINE").err().unwrap_or_else(|| {
                Error::invalid(format!("MATCH_RECOGNIZE: DEFINE names \"{name}\", which is a SUBSET"))
            }));
        };
        match self.conditions[at].replace(definition) {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!("MATCH_RECOGNIZE: DEFINE defines \"{name}\" twice"))),
        }
    }

    /// Reads `u = (a, b)`.
    fn subset(&mut self, definition: ExprTree) -> Result<()> {
        let text = definition.to_string();
        let wrong = || {
            Error::invalid(format!("MATCH_RECOGNIZE: SUBSET {text}, but a name and variables were expected"))
                .hint("Write SUBSET u = (a, b), v = (b, c).")
        };
        let ExprTree::BinaryOp { left, right, .. } = definition else { return Err(wrong()) };
        let ExprTree::Identifier(name) = *left else { return Err(wrong()) };
        let name = fold(&name);
        let members = match *right {
            ExprTree::Tuple(members) => members,
            ExprTree::Nested(member) => vec![*member],
            _ => return Err(wrong()),
        };
        if self.names.get(&name).is_some() {
            return Err(Error::invalid(format!(
                "MATCH_RECOGNIZE: the name \"{name}\" of the SUBSET is already used"
            )));
        }
        let mut variables = BTreeSet::new();
        for member in members {
            let ExprTree::Identifier(member) = member else { return Err(wrong()) };
            variables.extend(self.names.expect(&fold(&member), "SUBSET")?);
        }
        self.names.subsets.push((name, variables.into_iter().collect()));
        Ok(())
    }
}

fn shows(written: Option<RowsPerMatch>, program: &Program) -> Result<Shows> {
    let shows = match written {
        None | Some(RowsPerMatch::OneRow) => Shows::OneRow,
        Some(RowsPerMatch::AllRows(mode)) => Shows::AllRows {
            empty: mode != Some(EmptyMatchesMode::Omit),
            unmatched: mode == Some(EmptyMatchesMode::WithUnmatched),
        },
    };
    if matches!(shows, Shows::AllRows { unmatched: true, .. }) && program.excludes() {
        return Err(Error::invalid("MATCH_RECOGNIZE: WITH UNMATCHED ROWS with {- … -} in PATTERN")
            .hint("Excluded rows are matched, so neither part would show them: use SHOW EMPTY MATCHES."));
    }
    Ok(shows)
}

fn skip(written: Option<AfterMatchSkip>, names: &PatternVariables) -> Result<Skip> {
    let among = |name: &Ident| -> Result<(String, Vec<usize>)> {
        let name = fold(name);
        let among = names.expect(&name, "AFTER MATCH SKIP")?;
        Ok((name, among))
    };
    Ok(match written {
        None | Some(AfterMatchSkip::PastLastRow) => Skip::PastLastRow,
        Some(AfterMatchSkip::ToNextRow) => Skip::ToNextRow,
        Some(AfterMatchSkip::ToFirst(name)) => {
            among(&name).map(|(name, among)| Skip::ToFirst(name, among))?
        }
        Some(AfterMatchSkip::ToLast(name)) => among(&name).map(|(name, among)| Skip::ToLast(name, among))?,
    })
}

fn partition_column(
    written: ExprTree,
    schema: &DFSchema,
    context: &mut dyn RelationPlannerContext,
) -> Result<Column> {
    let text = written.to_string();
    match context.sql_to_expr(written, schema)? {
        Expr::Column(column) => Ok(column),
        _ => Err(Error::invalid(format!("MATCH_RECOGNIZE: PARTITION BY {text}, but a column was expected"))
            .hint(
                "Compute it in a subquery: FROM (SELECT *, … AS k FROM t) MATCH_RECOGNIZE (PARTITION BY k \
                   …).",
            )),
    }
}

/// Plans a sort key. Equal floats become one value.
fn order_key(written: OrderByExpr, reader: &mut TermReader<'_>) -> Result<(Expr, SortOptions)> {
    let key = reader.context.sql_to_expr(written.expr, reader.schema)?;
    let key = match has_equal_forms(&key.get_type(reader.schema)?) {
        true => one_form::call(key),
        false => key,
    };
    let descending = written.options.asc == Some(false);
    let nulls_first = written.options.nulls_first.unwrap_or(descending);
    Ok((key, SortOptions { descending, nulls_first }))
}

/// Returns the indexes of two values: a row's time, and the time at which a match from it expires.
fn within(
    length: ExprTree,
    order: &[(Expr, SortOptions)],
    reader: &mut TermReader<'_>,
) -> Result<(usize, usize)> {
    let text = length.to_string();
    let Some(length) = event_time::interval(length, reader.context) else {
        return Err(Error::invalid(format!("MATCH_RECOGNIZE: WITHIN {text}, but an interval was expected")));
    };
    let parts = [i64::from(length.months), i64::from(length.days), length.nanoseconds];
    if parts.iter().any(|part| *part < 0) || parts.iter().all(|part| *part == 0) {
        return Err(Error::invalid(format!("MATCH_RECOGNIZE: WITHIN {text}, but it must be above zero")));
    }
    let time = match order.first() {
        Some((key, SortOptions { descending: false, .. }))
            if matches!(key.get_type(reader.schema)?, DataType::Timestamp(..)) =>
        {
            key.clone()
        }
        _ => {
            return Err(Error::invalid(
                "MATCH_RECOGNIZE: WITHIN needs rows in the order of their time, but ORDER BY has no timestamp first",
            )
            .hint("ORDER BY ts, the column whose times WITHIN compares, ascending."));
        }
    };
    let end = time.clone() + lit(ScalarValue::IntervalMonthDayNano(Some(length)));
    Ok((reader.number_of(time), reader.number_of(end)))
}

/// The expressions of a clause.
struct Formulas {
    /// The condition of each variable.
    conditions: Vec<Option<Formula>>,
    measures: Vec<(String, Formula)>,
}

impl Formulas {
    fn new(
        measures: Vec<Measure>,
        conditions: &[Option<ExprTree>],
        reader: &mut TermReader<'_>,
    ) -> Result<Formulas> {
        let mut formulas = Formulas { conditions: Vec::new(), measures: Vec::new() };
        let variables = &reader.names.variables;
        for (name, condition) in variables.iter().zip(conditions) {
            let name = || format!("DEFINE {name}");
            let formula = condition.clone().map(|tree| reader.formula(name(), tree, false)).transpose()?;
            formulas.conditions.push(formula);
        }
        for Measure { expr, alias } in measures {
            let name = fold(&alias);
            let formula = reader.formula(format!("the measure \"{name}\""), expr, true)?;
            formulas.measures.push((name, formula));
        }
        Ok(formulas)
    }
}

/// A clause as written, without its expressions.
struct Written {
    text: String,
    program: Program,
    shows: Shows,
    skip: Skip,
    partition: Vec<Column>,
    order: Vec<(Expr, SortOptions)>,
}

impl Written {
    /// Returns the indexes of the input columns that the clause needs.
    fn taken(&self, schema: &DFSchema, values: &[Expr], calls: &[Expr]) -> Vec<usize> {
        if self.shows != Shows::OneRow {
            return (0..schema.fields().len()).collect();
        }
        let order = self.order.iter().map(|(key, _)| key);
        let columns = order.chain(values).chain(calls).flat_map(|expr| expr.column_refs());
        let taken: BTreeSet<usize> =
            columns.filter_map(|column| schema.maybe_index_of_column(column)).collect();
        // An aggregate needs at least one argument.
        if taken.is_empty() { vec![0] } else { taken.into_iter().collect() }
    }

    fn planned(
        &self,
        planner: &Planner,
        context: &mut dyn RelationPlannerContext,
        formulas: Formulas,
        (values, calls, within): (Vec<Expr>, Vec<Expr>, Option<(usize, usize)>),
        taken: &[usize],
        schema: &DFSchema,
    ) -> Result<Planned> {
        let compiler = Compiler { planner };
        let rows = columns_of(taken, schema)?;
        let physical = compiler.expressions(&values, &rows)?;
        let compiled = calls.iter().map(|call| compiler.call(call, &rows)).collect::<Result<Vec<Call>>>()?;
        let types = physical.iter().map(|value| Ok(value.data_type(rows.as_arrow())?));
        let types = Types { values: types.collect::<Result<_>>()?, calls: &compiled };
        let mut asked = |formula: Formula| -> Result<Asked> {
            let columns = columns(term_fields(formula.terms.iter().map(|term| types.of(term)).collect()))?;
            let expr = context.sql_to_expr(formula.tree, &columns)?;
            Ok(Asked { name: formula.name, terms: formula.terms, columns, expr })
        };
        let mut conditions = Vec::with_capacity(formulas.conditions.len());
        for formula in formulas.conditions {
            conditions.push(formula.map(&mut asked).transpose()?);
        }
        let mut measures = Vec::with_capacity(formulas.measures.len());
        for (name, formula) in formulas.measures {
            measures.push((name, asked(formula)?));
        }
        Ok(Planned {
            text: self.text.clone(),
            columns: rows,
            shown: self.shown(taken, schema),
            order: self.order.clone(),
            program: self.program.clone(),
            conditions,
            values,
            calls,
            measures,
            shows: self.shows,
            skip: self.skip.clone(),
            within,
        })
    }

    /// Returns the needed columns that are shown beside the measures.
    fn shown(&self, taken: &[usize], schema: &DFSchema) -> Vec<usize> {
        if self.shows == Shows::OneRow {
            return Vec::new();
        }
        let partition = self.partition.iter().filter_map(|column| schema.maybe_index_of_column(column));
        let partition: Vec<usize> = partition.collect();
        (0..taken.len()).filter(|at| !partition.contains(&taken[*at])).collect()
    }
}

/// The types of the values computed for each row, and of the aggregates' results.
struct Types<'a> {
    values: Vec<DataType>,
    calls: &'a [Call],
}

impl Types<'_> {
    fn of(&self, term: &Term) -> DataType {
        match term {
            Term::Value(value, _) => self.values[*value].clone(),
            Term::Classifier(_) => DataType::Utf8View,
            Term::Number => DataType::Int64,
            Term::Aggregate(call, _) => self.calls[*call].function.field().data_type().clone(),
        }
    }
}

/// Returns the columns at these indexes.
fn columns_of(places: &[usize], schema: &DFSchema) -> Result<DFSchemaRef> {
    let fields = places.iter().map(|at| {
        let (qualifier, field) = schema.qualified_field(*at);
        (qualifier.cloned(), Arc::clone(field))
    });
    Ok(Arc::new(DFSchema::new_with_metadata(fields.collect(), HashMap::new())?))
}

/// Plans the matches. Columns of the partition and of the order come first, then measures, then the rest.
fn with_matches(
    input: LogicalPlan,
    written: &Written,
    clause: Clause,
    taken: &[usize],
) -> Result<LogicalPlan> {
    let schema = Arc::clone(input.schema());
    let ordered = |name: &&Arc<Field>| {
        let is_key =
            |(key, _): &(Expr, _)| matches!(key, Expr::Column(column) if column.name() == name.name());
        written.order.iter().any(is_key)
    };
    let (measures, columns) = clause.fields.split_at(clause.measures.len());
    let (first, last): (Vec<_>, Vec<_>) = columns.iter().partition(ordered);
    let part = |field: &Arc<Field>| {
        get_field(Expr::Column(Column::from_name(MATCH)), field.name().as_str()).alias(field.name())
    };
    let parts = first.into_iter().chain(measures).chain(last).map(part);
    let partition = written.partition.iter().map(|column| Expr::Column(column.clone()));
    let named = partition.clone().zip(&written.partition).map(|(expr, column)| expr.alias(column.name()));
    let items: Vec<Expr> = named.chain(parts).collect();
    let mut seen = BTreeSet::new();
    if let Some(twice) =
        items.iter().map(|item| item.schema_name().to_string()).find(|name| !seen.insert(name.clone()))
    {
        return Err(Error::invalid(format!("MATCH_RECOGNIZE: there are two columns \"{twice}\"")).hint(
            "Give the measure another name, or read the input from a subquery that renames the column.",
        ));
    }
    let arguments = taken.iter().map(|at| Expr::Column(Column::from(schema.qualified_field(*at))));
    let found = function(clause).call(arguments.collect()).alias(MATCH);
    Ok(LogicalPlanBuilder::from(input)
        .aggregate(partition.collect::<Vec<_>>(), [found])?
        .unnest_column(Column::from_name(MATCH))?
        .project(items)?
        .build()?)
}
