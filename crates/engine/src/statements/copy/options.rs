//! The options of COPY, in PostgreSQL's present syntax with parentheses and its older one without.

use std::ops::Range;

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Error, Result, TokenReader, sqlstate, suggestion};

use crate::copy::{CopyFormat, CopyHeader, CopyOptions};

/// Their names, for messages.
const NAMES: &[&str] = &[
    "format",
    "delimiter",
    "null",
    "header",
    "quote",
    "escape",
    "force_quote",
    "force_not_null",
    "force_null",
    "encoding",
    "freeze",
];

/// The options given, before defaults apply.
#[derive(Default)]
struct Said {
    format: Option<CopyFormat>,
    delimiter: Option<String>,
    null: Option<String>,
    header: Option<CopyHeader>,
    quote: Option<String>,
    escape: Option<String>,
    force_quote: Option<Columns>,
    force_not_null: Option<Columns>,
    force_null: Option<Columns>,
}

/// The columns that an option applies to.
enum Columns {
    All,
    Some(Vec<(String, Range<usize>)>),
}

/// Reads the rest of the statement; `inward` is true for COPY FROM.
pub(super) fn read(
    reader: &mut TokenReader<'_>,
    columns: &[String],
    binary: bool,
    inward: bool,
) -> Result<CopyOptions> {
    let mut said = Said::default();
    if binary {
        said.format = Some(CopyFormat::Binary);
    }
    reader.keyword(&["WITH"]);
    let start = reader.position();
    if reader.symbol(Token::LParen) {
        loop {
            said.option(reader)?;
            if reader.symbol(Token::RParen) {
                break;
            }
            reader.expect_symbol(Token::Comma)?;
        }
    } else {
        while !reader.is_end() && !reader.is_keyword(&["WHERE"]) {
            said.bare(reader)?;
        }
    }
    if reader.is_keyword(&["WHERE"]) {
        return Err(Error::unsupported("COPY … WHERE").at(reader.position()));
    }
    reader.expect_end()?;
    let place = start.start..reader.last_position().end.max(start.start);
    said.settle(columns, inward).map_err(|error| if error.span.is_some() { error } else { error.at(place) })
}

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid(message).code(sqlstate::INVALID_PARAMETER_VALUE)
}

impl Said {
    /// Reads `name [value]`.
    fn option(&mut self, reader: &mut TokenReader<'_>) -> Result<()> {
        let name = reader.identifier()?.to_ascii_lowercase();
        let at = reader.last_position();
        match name.as_str() {
            "format" => once(&mut self.format, format(&reader.value()?), &at)?,
            "delimiter" => once(&mut self.delimiter, Ok(reader.string()?), &at)?,
            "null" => once(&mut self.null, Ok(reader.string()?), &at)?,
            "header" => once(&mut self.header, header(reader), &at)?,
            "quote" => once(&mut self.quote, Ok(reader.string()?), &at)?,
            "escape" => once(&mut self.escape, Ok(reader.string()?), &at)?,
            "force_quote" => once(&mut self.force_quote, columns(reader, true), &at)?,
            "force_not_null" => once(&mut self.force_not_null, columns(reader, true), &at)?,
            "force_null" => once(&mut self.force_null, columns(reader, true), &at)?,
            "encoding" => encoding(&reader.value()?).map_err(|error| error.at(at))?,
            "freeze" if is_end(reader) => {}
            "freeze" => {
                reader.value()?;
            }
            "on_error" | "log_verbosity" | "default" | "reject_limit" => {
                return Err(Error::unsupported(format!("option \"{name}\" of COPY")).at(at));
            }
            other => {
                return Err(invalid(format!("unknown option \"{other}\" of COPY"))
                    .maybe_hint(suggestion::hint(other, "options", NAMES.iter().copied()))
                    .at(at));
            }
        }
        Ok(())
    }

    /// Reads an option in the syntax before PostgreSQL 9.
    fn bare(&mut self, reader: &mut TokenReader<'_>) -> Result<()> {
        let at = reader.position();
        let forms: &[&[&str]] = &[
            &["BINARY"],
            &["CSV"],
            &["HEADER"],
            &["DELIMITER"],
            &["USING", "DELIMITERS"],
            &["DELIMITERS"],
            &["NULL"],
            &["QUOTE"],
            &["ESCAPE"],
            &["FORCE", "QUOTE"],
            &["FORCE", "NOT", "NULL"],
            &["FORCE", "NULL"],
            &["ENCODING"],
            &["FREEZE"],
        ];
        let form = reader.one_of(forms);
        if matches!(form, Some(3..=8)) {
            reader.keyword(&["AS"]);
        }
        match form {
            Some(0) => once(&mut self.format, Ok(CopyFormat::Binary), &at),
            Some(1) => once(&mut self.format, Ok(CopyFormat::Csv), &at),
            Some(2) => once(&mut self.header, Ok(CopyHeader::Yes), &at),
            Some(3..=5) => once(&mut self.delimiter, reader.string(), &at),
            Some(6) => once(&mut self.null, reader.string(), &at),
            Some(7) => once(&mut self.quote, reader.string(), &at),
            Some(8) => once(&mut self.escape, reader.string(), &at),
            Some(9) => once(&mut self.force_quote, columns(reader, false), &at),
            Some(10) => once(&mut self.force_not_null, columns(reader, false), &at),
            Some(11) => once(&mut self.force_null, columns(reader, false), &at),
            Some(12) => encoding(&reader.value()?).map_err(|error| error.at(at)),
            Some(_) => Ok(()),
            None => Err(reader.expected("an option of COPY, as in WITH (FORMAT csv)")),
        }
    }

    fn settle(self, names: &[String], inward: bool) -> Result<CopyOptions> {
        let format = self.format.unwrap_or(CopyFormat::Text);
        let (csv, binary) = (format == CopyFormat::Csv, format == CopyFormat::Binary);
        let given = |given: bool, what: &str| match given {
            true => Err(invalid(format!("{what} is for the format csv only"))),
            false => Ok(()),
        };
        if binary && (self.delimiter.is_some() || self.null.is_some() || self.header.is_some()) {
            return Err(invalid("the format binary has no DELIMITER, NULL or HEADER"));
        }
        given(!csv && self.quote.is_some(), "QUOTE")?;
        given(!csv && self.escape.is_some(), "ESCAPE")?;
        given(!csv && self.force_quote.is_some(), "FORCE_QUOTE")?;
        given(!csv && self.force_not_null.is_some(), "FORCE_NOT_NULL")?;
        given(!csv && self.force_null.is_some(), "FORCE_NULL")?;
        let direction = |given: bool, what: &str, way: &str| match given {
            true => Err(invalid(format!("{what} is for COPY {way} only"))),
            false => Ok(()),
        };
        direction(inward && self.force_quote.is_some(), "FORCE_QUOTE", "TO")?;
        direction(!inward && self.force_not_null.is_some(), "FORCE_NOT_NULL", "FROM")?;
        direction(!inward && self.force_null.is_some(), "FORCE_NULL", "FROM")?;
        direction(!inward && self.header == Some(CopyHeader::Match), "HEADER MATCH", "FROM")?;
        let delimiter = byte("DELIMITER", self.delimiter.as_deref(), if csv { b',' } else { b'\t' })?;
        let quote = byte("QUOTE", self.quote.as_deref(), b'"')?;
        let escape = byte("ESCAPE", self.escape.as_deref(), quote)?;
        let null = self.null.unwrap_or_else(|| if csv { String::new() } else { "\\N".into() });
        check_signs(format, delimiter, quote, &null)?;
        Ok(CopyOptions {
            format,
            delimiter,
            null,
            header: self.header.unwrap_or(CopyHeader::No),
            quote,
            escape,
            force_quote: flags(self.force_quote, names)?,
            force_not_null: flags(self.force_not_null, names)?,
            force_null: flags(self.force_null, names)?,
        })
    }
}

fn once<T>(place: &mut Option<T>, value: Result<T>, at: &Range<usize>) -> Result<()> {
    let located = |error: Error| if error.span.is_some() { error } else { error.at(at.clone()) };
    match place.replace(value.map_err(located)?) {
        None => Ok(()),
        Some(_) => Err(Error::invalid("an option of COPY is given twice")
            .code(sqlstate::SYNTAX_ERROR)
            .at(at.clone())),
    }
}

fn is_end(reader: &TokenReader<'_>) -> bool {
    matches!(reader.peek(), Token::Comma | Token::RParen)
}

fn format(text: &str) -> Result<CopyFormat> {
    match text.to_ascii_lowercase().as_str() {
        "text" => Ok(CopyFormat::Text),
        "csv" => Ok(CopyFormat::Csv),
        "binary" => Ok(CopyFormat::Binary),
        _ => Err(invalid(format!("the format of COPY is '{text}', but text, csv or binary was expected"))),
    }
}

fn header(reader: &mut TokenReader<'_>) -> Result<CopyHeader> {
    if is_end(reader) {
        return Ok(CopyHeader::Yes);
    }
    let text = reader.value()?;
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "1" => Ok(CopyHeader::Yes),
        "false" | "off" | "0" => Ok(CopyHeader::No),
        "match" => Ok(CopyHeader::Match),
        _ => Err(invalid(format!("HEADER is '{text}', but true, false or match was expected"))),
    }
}

/// Reads `*`, `(a, b)`, or `a, b` unless `grouped`.
fn columns(reader: &mut TokenReader<'_>, grouped: bool) -> Result<Columns> {
    if reader.symbol(Token::Mul) {
        return Ok(Columns::All);
    }
    if grouped {
        reader.expect_symbol(Token::LParen)?;
    }
    let mut columns = Vec::new();
    loop {
        columns.push((reader.identifier()?, reader.last_position()));
        if !reader.symbol(Token::Comma) {
            break;
        }
    }
    if grouped {
        reader.expect_symbol(Token::RParen)?;
    }
    Ok(Columns::Some(columns))
}

fn flags(columns: Option<Columns>, names: &[String]) -> Result<Vec<bool>> {
    let mut flags = vec![false; names.len()];
    match columns {
        None => {}
        Some(Columns::All) => flags.fill(true),
        Some(Columns::Some(columns)) => {
            for (column, at) in columns {
                let Some(place) = names.iter().position(|name| *name == column) else {
                    return Err(Error::invalid(format!("column \"{column}\" not found in this COPY"))
                        .maybe_hint(suggestion::hint(&column, "columns", names.iter().map(String::as_str)))
                        .at(at));
                };
                flags[place] = true;
            }
        }
    }
    Ok(flags)
}

fn encoding(text: &str) -> Result<()> {
    let plain: String = text.chars().filter(|c| *c != '-' && *c != '_').collect();
    if ["utf8", "unicode", "sqlascii"].iter().any(|known| plain.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    Err(Error::unsupported(format!("the encoding '{text}'")).hint("Text is UTF8 here: convert it before."))
}

/// Returns the single byte of a character option.
fn byte(what: &str, text: Option<&str>, default: u8) -> Result<u8> {
    match text.map(str::as_bytes) {
        None => Ok(default),
        Some([byte]) if !matches!(byte, b'\n' | b'\r') => Ok(*byte),
        Some(_) => Err(invalid(format!("{what} of COPY is one character of one byte, and no end of a line"))),
    }
}

/// Refuses characters that would be ambiguous.
fn check_signs(format: CopyFormat, delimiter: u8, quote: u8, null: &str) -> Result<()> {
    if null.contains(['\r', '\n']) {
        return Err(invalid("NULL of COPY can't have an end of a line in it"));
    }
    match format {
        CopyFormat::Binary => Ok(()),
        CopyFormat::Text if b"\\.abcdefghijklmnopqrstuvwxyz0123456789".contains(&delimiter) => {
            Err(invalid(format!("DELIMITER of COPY can't be '{}' in the format text", delimiter as char)))
        }
        CopyFormat::Csv if delimiter == quote => {
            Err(invalid("DELIMITER and QUOTE of COPY must be different"))
        }
        CopyFormat::Csv if null.as_bytes().contains(&quote) => {
            Err(invalid("NULL of COPY can't have the QUOTE in it"))
        }
        _ if null.as_bytes().contains(&delimiter) => {
            Err(invalid("NULL of COPY can't have the DELIMITER in it"))
        }
        _ => Ok(()),
    }
}
