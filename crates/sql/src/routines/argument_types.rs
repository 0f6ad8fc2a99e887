//! The argument types that a declared parameter accepts.

use arrow::datatypes::DataType;
use millstream_delta::sql_type;

use crate::error::{Error, Result};

use super::function::{Parameter, UserFunction};

/// Returns the types to which a call's arguments are cast. Fails if an argument would need an explicit cast.
pub(super) fn accepted(call: &str, parameters: &[Parameter], found: &[DataType]) -> Result<Vec<DataType>> {
    let takes = || format!("It takes {call}{}.", list(parameters));
    if found.len() != parameters.len() {
        let plural = if parameters.len() == 1 { "" } else { "s" };
        let needed = parameters.iter().filter(|parameter| parameter.default.is_none()).count();
        let wanted = match needed == parameters.len() {
            true => needed.to_string(),
            false => format!("{needed} to {}", parameters.len()),
        };
        let message = format!("{call} takes {wanted} argument{plural}, {} were given", found.len());
        return Err(Error::invalid(message).hint(takes()));
    }
    for (place, (parameter, found)) in parameters.iter().zip(found).enumerate() {
        if !accepts(&parameter.data_type, found) {
            let message = format!(
                "argument {} of {call} is {}, {} was declared",
                place + 1,
                sql_type(found),
                sql_type(&parameter.data_type)
            );
            return Err(Error::invalid(message).hint(format!("Cast it. {}", takes())));
        }
    }
    Ok(parameters.iter().map(|parameter| parameter.data_type.clone()).collect())
}

/// Returns the type to which the value of UPDATE_STATE, its first argument, is cast.
pub(super) fn one(function: &UserFunction, wanted: &DataType, found: &[DataType]) -> Result<DataType> {
    match found.first() {
        Some(found) if accepts(wanted, found) && (is_text(wanted) || !is_text(found)) => Ok(wanted.clone()),
        found => {
            let (found, wanted) = (found.map(sql_type).unwrap_or_default(), sql_type(wanted));
            Err(Error::invalid(format!(
                "the value of UPDATE_STATE is {found}, {} takes {wanted}[]",
                function.name
            ))
            .hint("Cast it."))
        }
    }
}

/// Renders parameters: `(v BIGINT[], s BIGINT DEFAULT 0)`.
pub(super) fn list(parameters: &[Parameter]) -> String {
    let one = |parameter: &Parameter| {
        let name = parameter.name.as_ref().map_or(String::new(), |name| format!("{name} "));
        let default = parameter.default.as_ref().map_or(String::new(), |text| format!(" DEFAULT {text}"));
        format!("{name}{}{default}", sql_type(&parameter.data_type))
    };
    format!("({})", parameters.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// True if values of type `found` are cast implicitly to `wanted`.
pub(super) fn accepts(wanted: &DataType, found: &DataType) -> bool {
    use DataType::{Date32, Date64, Decimal128, Decimal256, FixedSizeList, LargeList, List, Timestamp};
    if wanted == found || found.is_null() {
        return true;
    }
    match (wanted, found) {
        // A quoted literal may have any type. Other text is refused where calls are inlined.
        (_, found) if is_text(found) => true,
        (wanted, found) if wanted.is_floating() => found.is_numeric(),
        (Decimal128(..) | Decimal256(..), found) => found.is_numeric(),
        // A literal is a BIGINT. A value that is too large is an error of its row.
        (wanted, found) if wanted.is_integer() => found.is_integer(),
        (Timestamp(..), Timestamp(..) | Date32 | Date64) => true,
        (Date32 | Date64, Date32 | Date64) => true,
        (
            List(wanted) | LargeList(wanted) | FixedSizeList(wanted, _),
            List(found) | LargeList(found) | FixedSizeList(found, _),
        ) => accepts(wanted.data_type(), found.data_type()),
        (wanted, found) if is_binary(wanted) => is_binary(found),
        (DataType::Interval(_), DataType::Interval(_)) => true,
        (DataType::Struct(wanted), DataType::Struct(found)) => {
            wanted.len() == found.len()
                && wanted
                    .iter()
                    .zip(found)
                    .all(|(wanted, found)| accepts(wanted.data_type(), found.data_type()))
        }
        _ => false,
    }
}

pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::BinaryView | DataType::LargeBinary)
}
