//! MERGE: one query over the join of a source and the table decides for each of its rows what happens.
//!
//! The query returns the old columns, the new ones, and what is done with them. Each pair of rows takes the first clause
//! whose condition holds, as in PostgreSQL 15. All clauses see the table as it was before the statement.
//!
//! Deliberately absent, and refused by name: WHEN NOT MATCHED BY SOURCE, and the clauses of other systems.

use std::collections::HashSet;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, CaseWhen, Join, JoinConstraint, JoinOperator, MergeAction, MergeClause,
    MergeClauseKind, MergeInsertExpr, MergeInsertKind, SelectItem, TableAlias, TableFactor, TableWithJoins,
    Value,
};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use millstream_delta::generated_of;

use super::generated::is_generated;
use super::tree::{aliased, column, named_table, plain_from, quoted, select_of};
use super::{Dml, Operation, Scope, Target, conflict, is_default, refuse, unknown_column};
use crate::defaults;
use crate::error::{Error, Result};
use crate::hidden_columns::last_name;
use crate::identity::{self, Identity};
use crate::planner::Raw;
use crate::reader::is_word;
use crate::relation::Relation;
use crate::routines::volatility;
use crate::sqlstate;
use crate::tokens::DIALECT;

/// The column with the number of the table's row, which is NULL in rows of the source without one. Users can't name it by accident.
const PRESENT: &str = "row of the merged table";

/// The column that stands for DO NOTHING, which the parser doesn't know.
const NOTHING: &str = "do nothing of merge";

/// The action that a MERGE takes for a row of its query.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Nothing = 0,
    Update = 1,
    Delete = 2,
    Insert = 3,
}

/// The rows that a MERGE changes, each batch with old columns and new ones.
#[derive(Debug)]
pub struct Merged {
    /// Rows whose old columns are deleted.
    pub old: Vec<RecordBatch>,
    /// Rows whose new columns replace old ones.
    pub updated: Vec<RecordBatch>,
    /// Rows whose new columns are inserted.
    pub inserted: Vec<RecordBatch>,
}

impl Merged {
    /// Returns the number of rows that are changed.
    pub fn count(&self) -> u64 {
        self.old.iter().chain(&self.inserted).map(|batch| batch.num_rows() as u64).sum()
    }
}

impl Dml {
    /// Distinguishes the rows of the query of a MERGE by what happens to them.
    pub fn merged(&self, batches: &[RecordBatch]) -> Result<Merged> {
        let mut seen = HashSet::new();
        let place = 2 * self.columns.fields().len();
        for batch in batches {
            let old = rows_of(batch, &[Action::Update, Action::Delete])?;
            let numbers =
                cast(old.column(place), &DataType::Int64).map_err(|error| Error::bug(error.to_string()))?;
            let numbers = numbers.as_primitive::<Int64Type>().iter().flatten();
            if !numbers.filter(|number| *number > 0).all(|number| seen.insert(number)) {
                return Err(changed_twice(&self.table));
            }
        }
        let of = |actions: &[Action]| {
            batches.iter().map(|batch| rows_of(batch, actions)).collect::<Result<Vec<_>>>()
        };
        Ok(Merged {
            old: of(&[Action::Update, Action::Delete])?,
            updated: of(&[Action::Update])?,
            inserted: of(&[Action::Insert])?,
        })
    }

    /// Fails if a new row of a MERGE lacks a required value.
    pub(super) fn check_merge(&self, rows: &RecordBatch) -> Result<()> {
        let new = rows_of(rows, &[Action::Update, Action::Insert])?;
        conflict::check_new(&self.columns, &self.table, &new, self.columns.fields().len())
    }
}

/// The error of a MERGE, or an INSERT with ON CONFLICT, of which several rows match one row of the table.
pub fn changed_twice(table: &str) -> Error {
    Error::invalid(format!("the statement would change a row of table \"{table}\" a second time"))
        .hint("Make its rows distinct by the columns that are compared first.")
        .code(sqlstate::CARDINALITY_VIOLATION)
}

/// Returns the rows with one of these actions. The last column has the action.
fn rows_of(batch: &RecordBatch, actions: &[Action]) -> Result<RecordBatch> {
    let kinds = batch.columns().last().and_then(|column| column.as_primitive_opt::<Int64Type>());
    let kinds = kinds.ok_or_else(|| Error::bug("the rows of a MERGE have no action"))?;
    let is_one = |kind: Option<i64>| actions.iter().any(|action| kind == Some(*action as i64));
    let wanted: BooleanArray = kinds.iter().map(|kind| Some(is_one(kind))).collect();
    filter_record_batch(batch, &wanted).map_err(|error| Error::bug(error.to_string()))
}

/// Replaces `DO NOTHING` of a MERGE by an action that the parser knows.
pub(super) fn replace_do_nothing(tokens: &mut Vec<TokenWithSpan>) -> Result<()> {
    let is = |at: usize, tokens: &[TokenWithSpan], word: &str| {
        tokens.get(at).is_some_and(|token| is_word(&token.token, word))
    };
    let (mut at, mut is_matched) = (0, false);
    while at < tokens.len() {
        // A CASE in a condition has WHEN, too.
        if is(at, tokens, "WHEN") && is(at + 1, tokens, "MATCHED") {
            is_matched = true;
        } else if is(at, tokens, "WHEN") && is(at + 1, tokens, "NOT") && is(at + 2, tokens, "MATCHED") {
            is_matched = false;
        }
        if is(at, tokens, "THEN") && is(at + 1, tokens, "DO") && is(at + 2, tokens, "NOTHING") {
            let text = match is_matched {
                true => format!("UPDATE SET \"{NOTHING}\" = NULL"),
                false => format!("INSERT (\"{NOTHING}\") VALUES (NULL)"),
            };
            let action = Tokenizer::new(&DIALECT, &text).tokenize();
            let action = action.map_err(|error| Error::bug(error.to_string()))?;
            let action = action.into_iter().filter(|token| !matches!(token, Token::Whitespace(_)));
            tokens.splice(at + 1..at + 3, action.map(TokenWithSpan::wrap));
        }
        at += 1;
    }
    Ok(())
}

/// A clause: its condition, what it does, and the new value of each column.
struct Clause {
    condition: ast::Expr,
    action: Action,
    values: Vec<Option<ast::Expr>>,
}

impl Scope<'_> {
    pub(super) fn merge(&self, merge: ast::Merge) -> Result<Dml> {
        refuse(merge.output.is_some(), "MERGE … OUTPUT")?;
        if merge.clauses.is_empty() {
            return Err(Error::invalid("syntax error: MERGE has no WHEN clause"));
        }
        let target = self.target(vec![plain_from(merge.table)])?;
        let clauses: Vec<Clause> =
            merge.clauses.into_iter().map(|clause| self.clause(&target, clause)).collect::<Result<_>>()?;
        let kind = || case(&clauses, |clause| Some(number(clause.action)));
        let mut tree = self.template()?;
        let select = select_of(&mut tree)?;
        let fields = target.columns.fields();
        select.projection =
            fields.iter().map(|f| aliased(&target.alias, f.name(), &format!("old.{}", f.name()))).collect();
        for (place, field) in fields.iter().enumerate() {
            // Rows that are deleted keep their values, which satisfy all constraints.
            let old = || column(&target.alias, field.name());
            let value = |clause: &Clause| Some(clause.values[place].clone().unwrap_or_else(old));
            let (expr, alias) = (case(&clauses, value), quoted(&format!("new.{}", field.name())));
            select.projection.push(SelectItem::ExprWithAlias { expr, alias });
        }
        let present =
            SelectItem::ExprWithAlias { expr: column(&target.alias, PRESENT), alias: quoted(PRESENT) };
        select.projection.push(present);
        select.projection.push(SelectItem::ExprWithAlias { expr: kind(), alias: quoted("action") });
        select.from = vec![self.joined(&target, merge.source, *merge.on)?];
        select.selection = Some(binary(kind(), BinaryOperator::Gt, number(Action::Nothing)));
        self.add_with(&mut tree, &target)?;
        let raw = self.translate(tree)?;
        refuse_volatile(&raw.plan)?;
        let raw = Raw { plan: self.cast_new(raw.plan, &target.columns)?, ..raw };
        let raw = self.with_generated_and_checks(raw, fields.len(), &target.name, &target.columns)?;
        let query = self.finish(raw, fields.len(), &target.columns)?;
        let (table, columns) = (target.name, target.columns);
        Ok(Dml { operation: Operation::Merge, table, columns, query, on_conflict: None, returning: None })
    }

    /// Returns `source LEFT JOIN (SELECT *, number AS present FROM table) AS alias ON condition`. Rows of a table without a
    /// key are numbered, others have 0.
    fn joined(&self, target: &Target, source: TableFactor, on: ast::Expr) -> Result<TableWithJoins> {
        let has_key = matches!(self.relations.get(&target.name), Some(Relation::Rows { key: Some(_), .. }));
        let number = if has_key { "0" } else { "row_number() OVER ()" };
        let mut inner = self.parse(&format!("SELECT *, {number} AS \"{PRESENT}\" FROM x"))?;
        let TableFactor::Table { name, .. } = &target.factor else {
            return Err(Error::bug("the target of a MERGE is no table"));
        };
        select_of(&mut inner)?.from = vec![plain_from(named_table(name.clone()))];
        let alias = TableAlias { explicit: true, name: target.alias.clone(), columns: Vec::new(), at: None };
        let relation =
            TableFactor::Derived { lateral: false, subquery: inner, alias: Some(alias), sample: None };
        let join_operator = JoinOperator::LeftOuter(JoinConstraint::On(on));
        Ok(TableWithJoins { relation: source, joins: vec![Join { relation, global: false, join_operator }] })
    }

    fn clause(&self, target: &Target, clause: MergeClause) -> Result<Clause> {
        let present = Box::new(column(&target.alias, PRESENT));
        let is_matched = match clause.clause_kind {
            MergeClauseKind::Matched => true,
            MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget => false,
            MergeClauseKind::NotMatchedBySource => {
                return Err(Error::unsupported("WHEN NOT MATCHED BY SOURCE").hint(
                    "Write a DELETE or UPDATE … WHERE NOT EXISTS (SELECT 1 FROM the source WHERE …).",
                ));
            }
        };
        let presence = match is_matched {
            true => ast::Expr::IsNotNull(present),
            false => ast::Expr::IsNull(present),
        };
        let condition = match clause.predicate {
            Some(predicate) => binary(presence, BinaryOperator::And, ast::Expr::Nested(Box::new(predicate))),
            None => presence,
        };
        let unchanged = || vec![None; target.columns.fields().len()];
        let (action, values) = match clause.action {
            MergeAction::Delete { .. } => (Action::Delete, unchanged()),
            MergeAction::Update(update) => {
                let others = update.update_predicate.is_some() || update.delete_predicate.is_some();
                refuse(others, "WHERE in the UPDATE of a MERGE")?;
                if is_nothing(update.assignments.first().map(|first| first.target.to_string())) {
                    return Ok(Clause { condition, action: Action::Nothing, values: unchanged() });
                }
                (Action::Update, self.assignments(target, update.assignments)?)
            }
            MergeAction::Insert(insert) => {
                refuse(insert.insert_predicate.is_some(), "WHERE in the INSERT of a MERGE")?;
                if is_nothing(insert.columns.first().map(ToString::to_string)) {
                    return Ok(Clause { condition, action: Action::Nothing, values: unchanged() });
                }
                (Action::Insert, self.inserted(target, insert)?)
            }
        };
        Ok(Clause { condition, action, values })
    }

    /// Returns the value of each column in a row that a MERGE inserts.
    fn inserted(&self, target: &Target, insert: MergeInsertExpr) -> Result<Vec<Option<ast::Expr>>> {
        let columns = &target.columns;
        let MergeInsertKind::Values(values) = insert.kind else {
            return Err(Error::unsupported("INSERT ROW").hint("Write INSERT (columns) VALUES (…)."));
        };
        let mut rows = values.rows.into_iter().map(|row| row.content);
        let (Some(given), None) = (rows.next(), rows.next()) else {
            return Err(Error::invalid("INSERT of a MERGE takes one row of VALUES"));
        };
        let mut places = Vec::new();
        for name in &insert.columns {
            let column = last_name(name).unwrap_or_default();
            let place = columns.index_of(&column);
            let place =
                place.map_err(|_| self.place(unknown_column(&column, &target.name, columns), name))?;
            if places.contains(&place) {
                return Err(self.place(Error::invalid(format!("column \"{column}\" is given twice")), name));
            }
            places.push(place);
        }
        if insert.columns.is_empty() {
            let plain = |place: &usize| generated_of(columns.field(*place)).is_none();
            places = (0..columns.fields().len()).filter(plain).take(given.len()).collect();
        }
        if places.len() != given.len() {
            let (values, columns) = (given.len(), places.len());
            let error = format!("INSERT of the MERGE has {values} values for {columns} columns");
            return Err(Error::invalid(error));
        }
        let defaults = columns.fields().iter().map(|field| match generated_of(field) {
            // Computed later.
            Some(_) => Ok(Some(ast::Expr::Value(Value::Null.into()))),
            None => defaults::tree(field).map(Some),
        });
        let mut all = defaults.collect::<Result<Vec<_>>>()?;
        for (place, value) in places.into_iter().zip(given).filter(|(_, value)| !is_default(value)) {
            let field = columns.field(place);
            if generated_of(field).is_some() {
                return Err(is_generated(field.name(), &target.name));
            }
            if Identity::of(field).is_some_and(|identity| identity.always) && !self.is_overriding {
                return Err(identity::given(field.name()));
            }
            all[place] = Some(value);
        }
        Ok(all)
    }
}

/// Fails if a condition has another value each time it is evaluated: that happens several times.
fn refuse_volatile(plan: &LogicalPlan) -> Result<()> {
    let mut found = false;
    for expr in plan.expressions() {
        expr.apply(|part| {
            if let Expr::Case(case) = part {
                found |= case.when_then_expr.iter().any(|(when, _)| volatility(when) == Volatility::Volatile);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    match found {
        false => Ok(()),
        true => {
            Err(Error::unsupported("a condition of MERGE that has another value each time, such as random()")
                .hint("Compute it in the source: USING (SELECT *, random() AS r FROM …) AS s."))
        }
    }
}

fn is_nothing(named: Option<String>) -> bool {
    named.is_some_and(|named| named.trim_matches('"') == NOTHING)
}

/// Returns `CASE WHEN condition THEN value … END` of all clauses.
fn case(clauses: &[Clause], value: impl Fn(&Clause) -> Option<ast::Expr>) -> ast::Expr {
    let when =
        |clause: &Clause| Some(CaseWhen { condition: clause.condition.clone(), result: value(clause)? });
    ast::Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: clauses.iter().filter_map(when).collect(),
        else_result: None,
    }
}

fn number(action: Action) -> ast::Expr {
    ast::Expr::Value(Value::Number((action as u8).to_string(), false).into())
}

fn binary(left: ast::Expr, op: BinaryOperator, right: ast::Expr) -> ast::Expr {
    ast::Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Tables, lines};

    fn tables() -> Tables {
        Tables::new()
            .table("t", "(id INT PRIMARY KEY, n INT NOT NULL DEFAULT 7)", "VALUES (1, 10), (2, 20), (3, 30)")
            .table("s", "(id INT, n INT)", "VALUES (2, 21), (3, NULL), (4, 40), (5, NULL)")
    }

    /// Returns the rows that are deleted, those that replace others, and those that are inserted.
    fn merged(sql: &str) -> [Vec<String>; 3] {
        let tables = tables();
        let dml = tables.planner.dml(sql, &tables).unwrap_or_else(|error| panic!("{}", error.render(sql)));
        assert_eq!(dml.operation, Operation::Merge);
        let rows = tables.execute(&dml.query.plan, &|batch| vec![batch]).unwrap();
        rows.iter().try_for_each(|batch| dml.check(batch)).unwrap();
        let merged = dml.merged(&rows).unwrap();
        let part = |batches: &[RecordBatch], columns: [usize; 2]| {
            let batches: Vec<RecordBatch> =
                batches.iter().map(|batch| batch.project(&columns).unwrap()).collect();
            let mut lines = lines(&batches);
            lines.sort_unstable();
            lines
        };
        [part(&merged.old, [0, 1]), part(&merged.updated, [2, 3]), part(&merged.inserted, [2, 3])]
    }

    #[test]
    fn each_row_takes_the_first_clause_that_holds() {
        let [old, updated, inserted] = merged(
            "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED AND s.n IS NULL THEN DELETE \
             WHEN MATCHED THEN UPDATE SET n = t.n + s.n \
             WHEN NOT MATCHED AND s.id > 4 THEN INSERT (id) VALUES (s.id) \
             WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.n)",
        );
        assert_eq!((old.len(), updated.len(), inserted.len()), (2, 1, 2), "{old:?} {updated:?} {inserted:?}");
        assert!(updated[0].contains("41") && inserted[1].contains('7'), "{updated:?} {inserted:?}");
    }

    #[test]
    fn nothing_happens_to_rows_without_a_clause() {
        let [old, updated, inserted] = merged(
            "MERGE INTO t AS a USING (SELECT * FROM s) AS b ON a.id = b.id WHEN MATCHED AND b.id = 2 THEN DO NOTHING \
             WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND b.id = 4 THEN DO NOTHING",
        );
        assert_eq!((old.len(), updated.len(), inserted.len()), (1, 0, 0), "{old:?}");
    }

    #[test]
    fn wrong_merges_are_refused() {
        let tables = tables();
        let message = |sql: &str| tables.planner.dml(sql, &tables).unwrap_err().message;
        let merge = |clause: &str| message(&format!("MERGE INTO t USING s ON t.id = s.id {clause}"));
        assert_eq!(merge("WHEN MATCHED THEN UPDATE SET x = 1"), "column \"x\" not found in \"t\"");
        assert_eq!(merge("WHEN NOT MATCHED THEN INSERT (x) VALUES (1)"), "column \"x\" not found in \"t\"");
        assert_eq!(
            merge("WHEN NOT MATCHED THEN INSERT (id, n) VALUES (1)"),
            "INSERT of the MERGE has 1 values for 2 columns"
        );
        assert!(merge("WHEN NOT MATCHED BY SOURCE THEN DELETE").contains("WHEN NOT MATCHED BY SOURCE"));
    }
}
