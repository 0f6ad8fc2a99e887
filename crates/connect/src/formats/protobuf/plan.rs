//! The resolution of a message against columns, by name.

use arrow::datatypes::{DataType, Fields, IntervalUnit};
use millstream_delta::sql_type;

use super::schema::{FieldType, Label, ProtoSchema, Scalar, TypeId, ValueType};
use crate::formats::target::is_parsed;

/// How a message becomes a row, or a STRUCT: the field of each column, if the message has it.
#[derive(Debug)]
pub(crate) struct MessagePlan {
    pub columns: Vec<Option<FieldPlan>>,
}

/// How a field becomes a value.
#[derive(Debug)]
pub(crate) struct FieldPlan {
    pub name: String,
    pub number: u32,
    pub label: Label,
    pub value: ValuePlan,
}

/// How a single value is read.
#[derive(Debug)]
pub(crate) enum ValuePlan {
    Scalar(Scalar),
    /// An enum as TEXT, with its names.
    Symbol(Vec<(String, i32)>),
    Message(MessagePlan),
    /// `google.protobuf.Timestamp`.
    Timestamp,
    /// `google.protobuf.Duration`.
    Duration,
    /// A message around a scalar, such as `google.protobuf.Int64Value`.
    Wrapped(Scalar),
}

/// Resolves a message against columns.
pub(crate) fn resolve(schema: &ProtoSchema, id: TypeId, columns: &Fields) -> Result<MessagePlan, String> {
    let fields = &schema.message(id).fields;
    let same = |name: &str| fields.iter().position(|field| field.name == name);
    let mut places: Vec<Option<usize>> = columns.iter().map(|column| same(column.name())).collect();
    for (index, column) in columns.iter().enumerate() {
        let similar = fields.iter().position(|field| field.name.eq_ignore_ascii_case(column.name()));
        if places[index].is_none() && similar.is_some() && !places.contains(&similar) {
            places[index] = similar;
        }
    }
    let plan = |(column, place): (&std::sync::Arc<arrow::datatypes::Field>, Option<usize>)| {
        place.map(|place| field_plan(schema, &fields[place], column.data_type())).transpose()
    };
    let columns: Result<Vec<Option<FieldPlan>>, String> = columns.iter().zip(places).map(plan).collect();
    Ok(MessagePlan { columns: columns? })
}

fn field_plan(schema: &ProtoSchema, field: &FieldType, to: &DataType) -> Result<FieldPlan, String> {
    let value = match (&field.label, to) {
        (Label::Repeated, DataType::List(item)) => value_plan(schema, &field.of, item.data_type())?,
        (Label::Map(key), DataType::Map(entries, _)) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                let keys = value_plan(schema, &ValueType::Scalar(*key), fields[0].data_type())?;
                keys.and_then(|_| value_plan(schema, &field.of, fields[1].data_type()).transpose())
                    .transpose()?
            }
            _ => None,
        },
        (Label::Repeated | Label::Map(_), _) => None,
        (_, to) => value_plan(schema, &field.of, to)?,
    };
    let value = value.ok_or_else(|| {
        let label = match &field.label {
            Label::Repeated => "repeated ",
            Label::Map(_) => "a map of ",
            _ => "",
        };
        let found = match &field.of {
            ValueType::Scalar(scalar) => format!("{scalar:?}").to_lowercase(),
            ValueType::Message(id) => format!("message '{}'", schema.message(*id).name),
            ValueType::Enum(_) => "an enum".to_string(),
            ValueType::Name(name, _) => name.clone(),
        };
        format!(
            "field '{}' is {label}{found} in the writer's schema, but the column is {}",
            field.name,
            sql_type(to)
        )
    })?;
    Ok(FieldPlan { name: field.name.clone(), number: field.number, label: field.label.clone(), value })
}

/// Returns the plan of a single value; `None` if the column can't hold it.
fn value_plan(schema: &ProtoSchema, of: &ValueType, to: &DataType) -> Result<Option<ValuePlan>, String> {
    Ok(match of {
        ValueType::Scalar(scalar) => fits(*scalar, to).then_some(ValuePlan::Scalar(*scalar)),
        ValueType::Enum(id) => match to {
            to if to.is_string() => Some(ValuePlan::Symbol(schema.enumeration(*id).values.clone())),
            to if to.is_integer() => Some(ValuePlan::Scalar(Scalar::Int32)),
            _ => None,
        },
        ValueType::Message(id) => {
            let message = schema.message(*id);
            match (message.name.as_str(), to) {
                ("google.protobuf.Timestamp", DataType::Timestamp(..)) => Some(ValuePlan::Timestamp),
                ("google.protobuf.Duration", DataType::Interval(IntervalUnit::MonthDayNano)) => {
                    Some(ValuePlan::Duration)
                }
                (_, DataType::Struct(fields)) => Some(ValuePlan::Message(resolve(schema, *id, fields)?)),
                (name, to) if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
                    match message.fields.as_slice() {
                        [FieldType { of: ValueType::Scalar(scalar), .. }] if fits(*scalar, to) => {
                            Some(ValuePlan::Wrapped(*scalar))
                        }
                        _ => None,
                    }
                }
                _ => None,
            }
        }
        ValueType::Name(..) => None,
    })
}

fn fits(scalar: Scalar, to: &DataType) -> bool {
    match scalar {
        Scalar::Double | Scalar::Float => to.is_floating(),
        Scalar::Bool => *to == DataType::Boolean,
        Scalar::String => to.is_string() || to.is_binary() || is_parsed(to),
        Scalar::Bytes => to.is_binary(),
        _ => to.is_integer() || to.is_floating() || to.is_decimal(),
    }
}
