//! `DESCRIBE name`: the columns of a relation.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_delta::sql_type_of;
use millstream_sql::{Error, Result, TokenReader, is_hidden, near};

use super::show::rows;
use crate::catalog::Definition;
use crate::session::{Response, Session};
use crate::system;

pub(crate) fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let name = reader.relation_name()?;
    let at = reader.last_position();
    reader.expect_end()?;
    if let Some(table) = system::table_name(&name) {
        let found = system::find(table).ok_or_else(|| {
            let names = system::TABLES.iter().map(|table| table.name);
            Error::invalid(format!("there is no relation \"{name}\"")).at(at).maybe_hint(near::hint(
                table,
                "tables there",
                names,
            ))
        })?;
        return columns_of(&found.schema(), |place, _| found.columns[place].doc.into());
    }
    let catalog = session.shared.catalog();
    let object = catalog.get(&name).map_err(|error| error.at(at.clone()))?;
    let Some(schema) = object.definition.schema() else {
        return Err(Error::invalid(format!("\"{name}\" is a sink: it has no columns"))
            .at(at)
            .hint(format!("SHOW CREATE {name} shows its statement.")));
    };
    let key: &[usize] = match &object.definition {
        Definition::Table { key, .. } => key,
        _ => &[],
    };
    let stamped = object.definition.stamped();
    columns_of(stamped.as_ref().unwrap_or(schema), |place, field| {
        match () {
            () if key.contains(&place) => "primary key",
            () if is_hidden(field) => "hidden: not in *",
            () => "",
        }
        .to_string()
    })
}

fn columns_of(schema: &Schema, remark: impl Fn(usize, &Field) -> String) -> Result<Response> {
    let fields = schema.fields();
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(fields.iter().map(|field| field.name()))),
        Arc::new(StringViewArray::from_iter_values(fields.iter().map(|field| sql_type_of(field)))),
        Arc::new(BooleanArray::from_iter(fields.iter().map(|field| Some(field.is_nullable())))),
        Arc::new(StringViewArray::from_iter_values(
            fields.iter().enumerate().map(|(place, field)| remark(place, field)),
        )),
    ];
    let schema = Arc::new(Schema::new(vec![
        Field::new("column", DataType::Utf8View, false),
        Field::new("type", DataType::Utf8View, false),
        Field::new("nullable", DataType::Boolean, false),
        Field::new("remark", DataType::Utf8View, false),
    ]));
    rows(RecordBatch::try_new(schema, columns))
}
