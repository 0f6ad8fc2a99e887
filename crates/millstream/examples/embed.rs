//! An engine inside a program. One task changes a table, the program feeds a stream, and a reader follows
//! the changes of a query meanwhile.
//!
//! ```sh
//! cargo run --example embed
//! ```

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};
use futures::StreamExt;
use millstream::connect::channel;
use millstream::datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use millstream::{Change, Engine, Op, arrow};

type AnyError = Box<dyn std::error::Error>;

/// A user-defined function: converts degrees Celsius to Fahrenheit.
fn fahrenheit(arguments: &[ColumnarValue]) -> millstream::datafusion::error::Result<ColumnarValue> {
    let celsius = ColumnarValue::values_to_arrays(arguments)?;
    let converted: Float64Array = celsius[0].as_primitive::<Float64Type>().unary(|c| c * 9.0 / 5.0 + 32.0);
    Ok(ColumnarValue::Array(Arc::new(converted)))
}

fn readings(sensors: &[&str], celsius: &[f64]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let sensors: ArrayRef = Arc::new(StringArray::from(sensors.to_vec()));
    let celsius: ArrayRef = Arc::new(Float64Array::from(celsius.to_vec()));
    RecordBatch::try_from_iter([("sensor", sensors), ("celsius", celsius)])
}

/// Prints the changes of an epoch, one line a row.
fn show(change: &Change) -> Result<(), AnyError> {
    let when = if change.is_snapshot { "at first" } else { "then" };
    for (rows, ops) in change.ops()? {
        let (rooms, counts) = (rows.column(0).as_string_view(), rows.column(1).as_primitive::<Int64Type>());
        let warmest = rows.column(2).as_primitive::<Float64Type>();
        for (row, op) in ops.into_iter().enumerate() {
            let sign = if op.is_insert() { '+' } else { '-' };
            let (room, count, most) = (rooms.value(row), counts.value(row), warmest.value(row));
            println!("{when:>8} {sign} {room:<8} {count} readings, {most:.1} °F at most");
            if op == Op::UpdateInsert && most > 80.0 {
                println!("         ! {room} is warm");
            }
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    // A channel that the program sends rows to. It buffers at most 10,000 rows.
    let columns =
        vec![Field::new("sensor", DataType::Utf8View, true), Field::new("celsius", DataType::Float64, true)];
    let (sender, readings_of_sensors) = channel("sensors", Arc::new(Schema::new(columns)), 10_000);
    let number = DataType::Float64;
    let engine = Engine::builder()
        .connector(readings_of_sensors)
        .scalar_function(create_udf(
            "fahrenheit",
            vec![number.clone()],
            number,
            Volatility::Immutable,
            Arc::new(fahrenheit),
        ))
        .start()?;

    let mut session = engine.session();
    session.execute("CREATE SOURCE readings WITH (connector = 'sensors')").await?;
    session.execute("CREATE TABLE sensors (sensor TEXT PRIMARY KEY, room TEXT)").await?;
    session
        .execute(
            "CREATE MATERIALIZED VIEW rooms AS \
             SELECT room, count(*) AS readings, max(fahrenheit(celsius)) AS warmest \
             FROM readings JOIN sensors USING (sensor) GROUP BY room",
        )
        .await?;
    session.execute("INSERT INTO sensors VALUES ('s1', 'kitchen'), ('s2', 'cellar')").await?;
    sender.send(readings(&["s1", "s2"], &[21.0, 12.5])?).await?;
    sender.flush().await;

    // The program follows the view while another task writes. Each change is a whole epoch.
    let mut changes = session.changes("rooms").await?;
    let mut other = engine.session();
    let writer = tokio::spawn(async move {
        sender.send(readings(&["s1", "s1", "s2"], &[24.0, 28.5, 12.0])?).await?;
        sender.flush().await;
        // A sensor moves to another room, and all of its readings with it.
        other.execute("UPDATE sensors SET room = 'kitchen' WHERE sensor = 's2'").await?;
        // Returning drops the last sender, which ends the source.
        Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    });
    while let Some(change) = changes.next().await {
        let change = change?;
        show(&change)?;
        // The cellar has no readings left: its row is deleted and none replaces it.
        if change.ops()?.iter().any(|(_, ops)| ops.contains(&Op::Delete)) {
            break;
        }
    }
    writer.await?.map_err(|error| error.to_string())?;

    let batches = session.collect("SELECT * FROM rooms ORDER BY room").await?;
    println!("{}", arrow::util::pretty::pretty_format_batches(&batches)?);
    engine.stop().await?;
    Ok(())
}
