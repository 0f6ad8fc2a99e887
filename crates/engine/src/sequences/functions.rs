//! The functions of sequences: `nextval`, `currval`, `lastval` and `setval`.
//!
//! A plan has functions without a session. [`bind`] gives them the session that runs the plan: its search path, and the last
//! numbers that it took, which `currval` and `lastval` return.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as PlanResult;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use millstream_delta::sql_type;
use millstream_sql::{Error, NEXT_OF_IDENTITY, Result, sqlstate};

use super::names::resolve;
use super::{Sequence, Sequences, missing};
use crate::catalog::Catalog;

/// The last numbers that a session took.
#[derive(Debug, Default)]
pub(crate) struct SessionSequences(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    /// The last number of each sequence, which may have got another name since.
    numbers: Vec<(Arc<Sequence>, i64)>,
    /// The sequence of the last `nextval`.
    last: Option<Arc<Sequence>>,
}

impl Taken {
    fn put(&mut self, sequence: &Arc<Sequence>, number: i64) {
        match self.numbers.iter_mut().find(|(known, _)| Arc::ptr_eq(known, sequence)) {
            Some((_, last)) => *last = number,
            None => self.numbers.push((sequence.clone(), number)),
        }
    }

    fn get(&self, sequence: &Arc<Sequence>) -> Option<i64> {
        let known = self.numbers.iter().find(|(known, _)| Arc::ptr_eq(known, sequence));
        known.map(|(_, number)| *number)
    }
}

impl SessionSequences {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all numbers: DISCARD SEQUENCES.
    pub(crate) fn clear(&self) {
        *self.lock() = Taken::default();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Next,
    /// `nextval` as the default of an identity column.
    NextOfIdentity,
    Current,
    Last,
    Set,
}

const FUNCTIONS: [(&str, Kind); 5] = [
    ("nextval", Kind::Next),
    (NEXT_OF_IDENTITY, Kind::NextOfIdentity),
    ("currval", Kind::Current),
    ("lastval", Kind::Last),
    ("setval", Kind::Set),
];

/// Registers the functions without a session.
pub(crate) fn register(registry: &mut dyn FunctionRegistry, sequences: &Arc<Sequences>) -> PlanResult<()> {
    for (name, kind) in FUNCTIONS {
        let types = match kind {
            Kind::Next | Kind::NextOfIdentity | Kind::Current => vec![TypeSignature::Any(1)],
            Kind::Last => vec![TypeSignature::Nullary],
            Kind::Set => vec![TypeSignature::Any(2), TypeSignature::Any(3)],
        };
        let signature = Signature::one_of(types, Volatility::Volatile);
        let function = Function { name, kind, sequences: sequences.clone(), session: None, signature };
        registry.register_udf(Arc::new(ScalarUDF::from(function)))?;
    }
    Ok(())
}

/// Gives the functions of sequences in a plan the session that runs it.
pub(crate) fn bind(
    plan: LogicalPlan,
    catalog: &Arc<Catalog>,
    taken: &Arc<SessionSequences>,
) -> Result<LogicalPlan> {
    if !calls(&plan, |_| true)? {
        return Ok(plan);
    }
    let bound = |expression: Expr| match &expression {
        Expr::ScalarFunction(call) => match call.func.inner().downcast_ref::<Function>() {
            Some(function) => {
                let session = Some(InSession { catalog: catalog.clone(), taken: taken.clone() });
                let function = Function { session, ..function.clone() };
                let call = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), call.args.clone());
                Ok(Transformed::yes(Expr::ScalarFunction(call)))
            }
            None => Ok(Transformed::no(expression)),
        },
        _ => Ok(Transformed::no(expression)),
    };
    let of_node = |node: LogicalPlan| node.map_expressions(|expression| expression.transform_up(bound));
    Ok(plan.transform_up_with_subqueries(of_node)?.data)
}

/// Returns true if a plan moves sequences in a way that the journal must have before rows leave the engine.
pub(crate) fn moves(plan: &LogicalPlan) -> Result<bool> {
    calls(plan, |kind| matches!(kind, Kind::Next | Kind::Set))
}

fn calls(plan: &LogicalPlan, wanted: fn(Kind) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            found |= expression.exists(|part| {
                let Expr::ScalarFunction(call) = part else { return Ok(false) };
                Ok(call.func.inner().downcast_ref::<Function>().is_some_and(|of| wanted(of.kind)))
            })?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

#[derive(Clone, Debug)]
struct InSession {
    catalog: Arc<Catalog>,
    taken: Arc<SessionSequences>,
}

#[derive(Clone, Debug)]
struct Function {
    name: &'static str,
    kind: Kind,
    sequences: Arc<Sequences>,
    session: Option<InSession>,
    signature: Signature,
}

impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        let session = |of: &Function| of.session.as_ref().map(|session| Arc::as_ptr(&session.taken));
        self.kind == other.kind
            && Arc::ptr_eq(&self.sequences, &other.sequences)
            && session(self) == session(other)
    }
}

impl Eq for Function {}

impl std::hash::Hash for Function {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> PlanResult<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let columns = arguments.args.into_iter().map(|argument| argument.into_array(rows));
        let columns = columns.collect::<PlanResult<Vec<_>>>()?;
        if self.kind == Kind::Last {
            let last = self.last_of_session()?;
            return Ok(ColumnarValue::Array(Arc::new(Int64Array::from(vec![last; rows]))));
        }
        let Some(name) = columns.first() else {
            return Err(Error::bug(format!("{} was called without an argument", self.name)).into());
        };
        let names = Names::of(name)?;
        let mut settings = None;
        let mut known: Option<(Written, String, Arc<Sequence>)> = None;
        let mut numbers = Vec::with_capacity(rows);
        for row in 0..rows {
            let Some(written) = names.at(row) else {
                numbers.push(None);
                continue;
            };
            if known.as_ref().is_none_or(|(last, ..)| *last != written) {
                let (name, sequence) = self.find(&written)?;
                known = Some((written, name, sequence));
            }
            let Some((_, name, sequence)) = &known else { continue };
            numbers.push(match self.kind {
                Kind::Next | Kind::NextOfIdentity => Some(self.next(name, sequence)?),
                Kind::Set => {
                    let settings = match &settings {
                        Some(settings) => settings,
                        None => settings.insert(Settings::of(&columns)?),
                    };
                    settings.at(row).map(|value| self.set(name, sequence, value)).transpose()?
                }
                Kind::Current | Kind::Last => Some(self.current(name, sequence)?),
            });
        }
        Ok(ColumnarValue::Array(Arc::new(Int64Array::from(numbers))))
    }
}

impl Function {
    /// Returns a sequence with its name in the catalog.
    fn find(&self, written: &Written) -> Result<(String, Arc<Sequence>)> {
        let exists = |name: &str| self.sequences.find(name).is_some();
        let catalog = self.session.as_ref().map(|session| session.catalog.as_ref());
        let name = match written {
            Written::Name(name) if self.kind == Kind::NextOfIdentity => Some(name.clone()),
            Written::Name(name) => resolve(name, catalog, exists),
            Written::Oid(oid) => catalog.and_then(|catalog| {
                let object = catalog.objects().find(|object| catalog.oid(&object.name) == *oid);
                object.map(|object| object.name.to_string())
            }),
        };
        let found = name.and_then(|name| self.sequences.find(&name).map(|sequence| (name, sequence)));
        found.ok_or_else(|| missing(&written.to_string()))
    }

    fn next(&self, name: &str, sequence: &Arc<Sequence>) -> Result<i64> {
        let is_unsaved = self.kind == Kind::Next;
        let number = {
            let mut numbers = sequence.lock();
            let number = numbers.next(name)?;
            numbers.is_unsaved |= is_unsaved;
            number
        };
        self.sequences.note_unsaved(is_unsaved);
        if let Some(session) = &self.session {
            let mut taken = session.taken.lock();
            taken.put(sequence, number);
            taken.last = Some(sequence.clone());
        }
        Ok(number)
    }

    fn set(&self, name: &str, sequence: &Arc<Sequence>, (number, is_called): (i64, bool)) -> Result<i64> {
        sequence.lock().set(name, number, is_called)?;
        self.sequences.note_unsaved(true);
        if let Some(session) = self.session.as_ref().filter(|_| is_called) {
            session.taken.lock().put(sequence, number);
        }
        Ok(number)
    }

    fn current(&self, name: &str, sequence: &Arc<Sequence>) -> Result<i64> {
        let taken = self.session.as_ref().map(|session| session.taken.lock());
        let number = taken.and_then(|taken| taken.get(sequence));
        number.ok_or_else(|| {
            undefined(format!("currval of sequence \"{name}\" is not yet defined in this session"))
        })
    }

    /// Returns the last number of `nextval` in the session.
    fn last_of_session(&self) -> Result<i64> {
        let taken = self.session.as_ref().map(|session| session.taken.lock());
        let number = taken.and_then(|taken| taken.get(taken.last.as_ref()?));
        number.ok_or_else(|| undefined("lastval is not yet defined in this session".into()))
    }
}

/// The numbers that `setval` sets sequences to, and whether each counts as given.
struct Settings {
    numbers: ArrayRef,
    are_called: Option<ArrayRef>,
}

impl Settings {
    fn of(columns: &[ArrayRef]) -> Result<Settings> {
        let numbers = columns.get(1).map(whole_numbers).transpose()?;
        let are_called = columns.get(2).map(|flags| cast(flags, &DataType::Boolean)).transpose();
        let are_called = are_called.map_err(crate::error::arrow)?;
        let numbers = numbers.ok_or_else(|| Error::bug("setval was called without a number"))?;
        Ok(Settings { numbers, are_called })
    }

    /// Returns the number of a row, and whether it counts as given; none if one of them is NULL.
    fn at(&self, row: usize) -> Option<(i64, bool)> {
        if self.numbers.is_null(row) || self.are_called.as_ref().is_some_and(|flags| flags.is_null(row)) {
            return None;
        }
        let is_called = self.are_called.as_ref().is_none_or(|flags| flags.as_boolean().value(row));
        Some((self.numbers.as_primitive::<Int64Type>().value(row), is_called))
    }
}

/// Returns the numbers of `setval`.
fn whole_numbers(column: &ArrayRef) -> Result<ArrayRef> {
    let is_whole =
        column.data_type().is_integer() || column.data_type().is_null() || column.data_type().is_string();
    if !is_whole {
        let error = format!("setval takes a whole number, but {} was given", sql_type(column.data_type()));
        return Err(Error::invalid(error)
            .hint("Cast it: setval('s', x::BIGINT).")
            .code(sqlstate::UNDEFINED_FUNCTION));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, &DataType::Int64, &options).map_err(|_| {
        Error::invalid("setval takes a number of type BIGINT, but a greater one was given")
            .code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE)
    })
}

fn undefined(message: String) -> Error {
    Error::invalid(message)
        .hint("Call nextval first, or INSERT a row into a table with an identity column.")
        .code(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE)
}

/// A sequence as a function is called with it: by its name, or by its OID, as `regclass` gives it.
#[derive(PartialEq, Eq)]
enum Written {
    Name(String),
    Oid(i64),
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Written::Name(name) => f.write_str(name),
            Written::Oid(oid) => oid.fmt(f),
        }
    }
}

/// The sequences that a function is called with: names, or OIDs.
struct Names(ArrayRef);

impl Names {
    fn of(column: &ArrayRef) -> Result<Names> {
        let to = if column.data_type().is_integer() { DataType::Int64 } else { DataType::Utf8 };
        cast(column, &to).map(Names).map_err(crate::error::arrow)
    }

    fn at(&self, row: usize) -> Option<Written> {
        if self.0.is_null(row) {
            return None;
        }
        Some(match self.0.as_primitive_opt::<Int64Type>() {
            Some(oids) => Written::Oid(oids.value(row)),
            None => Written::Name(self.0.as_string::<i32>().value(row).to_string()),
        })
    }
}
