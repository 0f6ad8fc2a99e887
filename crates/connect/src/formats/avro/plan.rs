//! The resolution of a writer's schema against columns: by name, with Avro's promotions.

use arrow::datatypes::{DataType, FieldRef, Fields, TimeUnit};
use millstream_delta::sql_type;

use super::schema::{AvroSchema, Kind, Logical, TypeId};
use crate::formats::target::{is_parsed, per_second};

/// Most parts of a plan: the branches of unions multiply.
const PARTS_MAX: usize = 100_000;

/// How a datum becomes a row.
#[derive(Debug)]
pub(crate) enum RowPlan {
    /// A record, by the names of its fields.
    Fields(Plan),
    /// Another value, as the only column.
    Only(Plan),
}

/// How a value of the writer becomes a value of a column.
#[derive(Debug)]
pub(crate) enum Plan {
    Null,
    Boolean,
    /// A whole number, of 32 bits if `is_int`.
    Whole {
        is_int: bool,
        scaling: Scaling,
    },
    Float,
    Double,
    /// A decimal in bytes, or in a fixed number of them.
    Decimal {
        size: Option<usize>,
        scale: usize,
    },
    /// A text, as TEXT or BYTEA.
    Text,
    /// A text that is a date, a time or a number.
    Parsed,
    /// Bytes, or a fixed number of them, as TEXT or BYTEA.
    Bytes {
        size: Option<usize>,
    },
    /// A UUID in 16 bytes, as TEXT.
    Uuid,
    Enum(Vec<String>),
    Duration,
    Array(Box<Plan>),
    Map(Box<Plan>),
    Record(RecordPlan),
    /// The plan of each branch, or why the column has no place for it.
    Union(Vec<Result<Plan, String>>),
}

/// The plan of a record.
#[derive(Debug)]
pub(crate) struct RecordPlan {
    /// The fields in the writer's order.
    pub steps: Vec<Step>,
    /// The columns that the writer doesn't have.
    pub absent: Vec<usize>,
}

/// A field of a record.
#[derive(Debug)]
pub(crate) struct Step {
    pub name: String,
    pub action: Action,
}

/// The use of a field of the writer's schema.
#[derive(Debug)]
pub(crate) enum Action {
    Skip(TypeId),
    Read(usize, Plan),
}

/// The conversion of a time between units.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scaling {
    Multiply(i64),
    Divide(i64),
}

/// Resolves a schema against the columns of a row.
pub(crate) fn resolve(schema: &AvroSchema, columns: &Fields) -> Result<RowPlan, String> {
    let mut resolver = Resolver { schema, parts: 0 };
    let root = schema.root();
    let is_record = |id: TypeId| matches!(schema.get(id).kind, Kind::Record { .. });
    let has_records = match &schema.get(root).kind {
        Kind::Union(branches) => branches.iter().any(|branch| is_record(*branch)),
        _ => is_record(root),
    };
    match (has_records, columns.as_ref()) {
        (false, [only]) => resolver.plan(root, only).map(RowPlan::Only),
        _ => resolver.plan_of(root, &DataType::Struct(columns.clone())).map(RowPlan::Fields),
    }
}

struct Resolver<'a> {
    schema: &'a AvroSchema,
    parts: usize,
}

impl Resolver<'_> {
    fn plan(&mut self, id: TypeId, field: &FieldRef) -> Result<Plan, String> {
        self.plan_of(id, field.data_type())
    }

    fn plan_of(&mut self, id: TypeId, to: &DataType) -> Result<Plan, String> {
        self.parts += 1;
        if self.parts > PARTS_MAX {
            return Err("the writer's schema has too many unions within unions".to_string());
        }
        let from = self.schema.get(id);
        let plan = match (&from.kind, to) {
            (Kind::Null, _) => Some(Plan::Null),
            (Kind::Union(branches), _) => {
                let plans: Vec<Result<Plan, String>> =
                    branches.iter().map(|branch| self.plan_of(*branch, to)).collect();
                let fits =
                    |plan: &&Result<Plan, String>| matches!(plan, Ok(plan) if !matches!(plan, Plan::Null));
                // A column that fits no branch is a mistake of the declaration.
                match plans.iter().find(fits) {
                    None if branches.len() > 1 => plans.into_iter().find(Result::is_err).transpose()?,
                    _ => Some(Plan::Union(plans)),
                }
            }
            (Kind::Array(item), DataType::List(field)) => {
                Some(Plan::Array(Box::new(self.plan(*item, field)?)))
            }
            (Kind::Map(value), DataType::Map(entries, _)) => match entries.data_type() {
                DataType::Struct(fields) if fields.len() == 2 && fields[0].data_type().is_string() => {
                    Some(Plan::Map(Box::new(self.plan(*value, &fields[1])?)))
                }
                _ => None,
            },
            (Kind::Record { fields, .. }, DataType::Struct(columns)) => {
                Some(Plan::Record(self.record(fields, columns)?))
            }
            _ => leaf(&from.kind, from.logical, to),
        };
        plan.ok_or_else(|| {
            format!("is {} in the writer's schema, but the column is {}", self.schema.name(id), sql_type(to))
        })
    }

    fn record(&mut self, fields: &[(String, TypeId)], columns: &Fields) -> Result<RecordPlan, String> {
        let places = places(fields, columns);
        let mut steps = Vec::with_capacity(fields.len());
        for ((name, id), place) in fields.iter().zip(&places) {
            let action = match place {
                None => Action::Skip(*id),
                Some(place) => {
                    let plan = self.plan(*id, &columns[*place]);
                    Action::Read(*place, plan.map_err(|error| within(name, &error))?)
                }
            };
            steps.push(Step { name: name.clone(), action });
        }
        let absent = (0..columns.len()).filter(|place| !places.contains(&Some(*place))).collect();
        Ok(RecordPlan { steps, absent })
    }
}

/// Returns the column of each field: that of its name, or else the one that differs in case only.
fn places(fields: &[(String, TypeId)], columns: &Fields) -> Vec<Option<usize>> {
    let find = |matches: &dyn Fn(&str) -> bool| columns.iter().position(|column| matches(column.name()));
    let mut places: Vec<Option<usize>> =
        fields.iter().map(|(name, _)| find(&|column| column == name)).collect();
    for (index, (name, _)) in fields.iter().enumerate() {
        let similar = find(&|column| column.eq_ignore_ascii_case(name));
        if places[index].is_none() && similar.is_some() && !places.contains(&similar) {
            places[index] = similar;
        }
    }
    places
}

fn within(name: &str, error: &str) -> String {
    match error.strip_prefix("field '") {
        Some(rest) => format!("field '{name}.{rest}"),
        None => format!("field '{name}' {error}"),
    }
}

/// Returns the plan of a value without inner values; `None` if the column can't hold it.
fn leaf(kind: &Kind, logical: Option<Logical>, to: &DataType) -> Option<Plan> {
    let is_int = matches!(kind, Kind::Int);
    let same = Scaling::Multiply(1);
    match (kind, to) {
        (Kind::Boolean, DataType::Boolean) => Some(Plan::Boolean),
        (Kind::Int | Kind::Long, DataType::Date32) if logical == Some(Logical::Date) => {
            Some(Plan::Whole { is_int, scaling: same })
        }
        (Kind::Int | Kind::Long, DataType::Time32(_) | DataType::Time64(_) | DataType::Timestamp(..)) => {
            Some(Plan::Whole { is_int, scaling: time_scaling(logical?, to)? })
        }
        (Kind::Int | Kind::Long, to) if to.is_integer() => Some(Plan::Whole { is_int, scaling: same }),
        (Kind::Int | Kind::Long, to) if (to.is_floating() || to.is_decimal()) && logical.is_none() => {
            Some(Plan::Whole { is_int, scaling: same })
        }
        (Kind::Float, to) if to.is_floating() => Some(Plan::Float),
        (Kind::Double, to) if to.is_floating() => Some(Plan::Double),
        (Kind::Bytes | Kind::Fixed(_), to) if to.is_decimal() || *to == DataType::UInt64 => match logical {
            Some(Logical::Decimal { scale, .. }) => Some(Plan::Decimal { size: size(kind), scale }),
            _ => None,
        },
        (Kind::Fixed(_), to) if logical == Some(Logical::Uuid) && to.is_string() => Some(Plan::Uuid),
        (Kind::Fixed(_), DataType::Interval(_)) if logical == Some(Logical::Duration) => Some(Plan::Duration),
        (Kind::String, to) if to.is_string() || to.is_binary() => Some(Plan::Text),
        (Kind::String, to) if is_parsed(to) => Some(Plan::Parsed),
        (Kind::Bytes, to) if to.is_string() && logical.is_none() => Some(Plan::Bytes { size: None }),
        (Kind::Bytes | Kind::Fixed(_), to) if to.is_binary() => Some(Plan::Bytes { size: size(kind) }),
        (Kind::Enum(symbols), to) if to.is_string() => Some(Plan::Enum(symbols.clone())),
        _ => None,
    }
}

fn size(kind: &Kind) -> Option<usize> {
    match kind {
        Kind::Fixed(size) => Some(*size),
        _ => None,
    }
}

/// Returns the conversion of a time to a column's unit.
fn time_scaling(logical: Logical, to: &DataType) -> Option<Scaling> {
    let (from, to): (TimeUnit, &TimeUnit) = match (logical, to) {
        (Logical::Time(from), DataType::Time32(to) | DataType::Time64(to)) => (from, to),
        (Logical::Timestamp(from) | Logical::LocalTimestamp(from), DataType::Timestamp(to, _)) => (from, to),
        _ => return None,
    };
    let (from, to) = (per_second(&from), per_second(to));
    Some(match to >= from {
        true => Scaling::Multiply(to / from),
        false => Scaling::Divide(from / to),
    })
}
