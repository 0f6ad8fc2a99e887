//! `FORMAT PLAIN | UPSERT | DEBEZIUM | MAXWELL | CANAL ENCODE JSON | CSV | … [(option = value, …)]`: RisingWave's syntax for
//! the option `format`, after WITH.

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Error, Result, TokenReader};

/// Options of a source or a sink, in their order.
type Settings = Vec<(String, String)>;

/// Reads the clause if it comes next, and adds its options.
pub(super) fn read(reader: &mut TokenReader<'_>, options: &mut Settings) -> Result<()> {
    if reader.is_keyword(&["FORMAT"]) {
        let said = clause(reader)?;
        merge(said, options)?;
    }
    Ok(())
}

/// Removes the clause from the end of a statement, if there is one, and returns its options.
pub(super) fn cut(reader: &mut TokenReader<'_>) -> Result<Settings> {
    let mut ahead = reader.clone();
    while !ahead.is_end() {
        if ahead.is_keyword(&["FORMAT"])
            && matches!(ahead.peek_at(2), Token::Word(word) if word.value.eq_ignore_ascii_case("ENCODE"))
        {
            let start = ahead.position().start;
            let said = clause(&mut ahead)?;
            ahead.expect_end()?;
            reader.cut(start);
            return Ok(said);
        }
        ahead.next();
    }
    Ok(Vec::new())
}

/// Adds the options of the clause to those of WITH.
pub(super) fn merge(said: Settings, options: &mut Settings) -> Result<()> {
    for (name, value) in said {
        match options.iter().find(|(other, _)| *other == name) {
            Some((_, before)) if name == "format" => {
                return Err(Error::invalid(format!(
                    "option \"format\" is given twice: '{before}' in WITH, and '{value}' by FORMAT … ENCODE …; leave one \
                     of them out"
                )));
            }
            Some(_) => {
                return Err(Error::invalid(format!(
                    "option \"{name}\" is given twice: in WITH and after ENCODE; leave one of them out"
                )));
            }
            None => {}
        }
        options.push((name, value));
    }
    Ok(())
}

fn clause(reader: &mut TokenReader<'_>) -> Result<Settings> {
    let start = reader.position().start;
    reader.expect_keyword(&["FORMAT"])?;
    let format = reader.identifier()?.to_uppercase();
    reader.expect_keyword(&["ENCODE"])?;
    let encode = reader.identifier()?.to_uppercase();
    let at = start..reader.last_position().end;
    let name = match (format.as_str(), encode.as_str()) {
        ("PLAIN", "JSON") => "json",
        ("PLAIN", "CSV") => "csv",
        ("PLAIN", "PARQUET") => "parquet",
        ("PLAIN", "TEXT") => "text",
        ("PLAIN", "BYTES") => "bytes",
        ("PLAIN", "AVRO") => "avro",
        ("PLAIN", "PROTOBUF") => "protobuf",
        ("UPSERT", "JSON") => "upsert_json",
        ("UPSERT", "AVRO") => "upsert_avro",
        ("UPSERT", "PROTOBUF") => "upsert_protobuf",
        ("DEBEZIUM", "JSON") => "debezium_json",
        ("DEBEZIUM", "AVRO") => "debezium_avro",
        ("MAXWELL", "JSON") => "maxwell_json",
        ("CANAL", "JSON") => "canal_json",
        _ => {
            return Err(Error::unsupported(format!("FORMAT {format} ENCODE {encode}"))
                .hint("There is FORMAT PLAIN with ENCODE JSON, AVRO, PROTOBUF, CSV, PARQUET, TEXT or BYTES, FORMAT UPSERT or DEBEZIUM with ENCODE JSON or AVRO, in sinks FORMAT UPSERT ENCODE PROTOBUF, and FORMAT MAXWELL or CANAL with ENCODE JSON.")
                .at(at));
        }
    };
    let mut said = vec![("format".to_string(), name.to_string())];
    if *reader.peek() == Token::LParen {
        for (name, value) in reader.option_list()? {
            said.push(match name.as_str() {
                "without_header" => {
                    let without = value.eq_ignore_ascii_case("true");
                    ("header".to_string(), (!without).to_string())
                }
                _ => (name, value),
            });
        }
    }
    Ok(said)
}
