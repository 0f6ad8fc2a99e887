//! `normalize(text, form)` and `text IS form NORMALIZED`: the normal forms of Unicode (Standard Annex 15).

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, StringViewArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use unicode_normalization::{
    IsNormalized, UnicodeNormalization, is_nfc, is_nfc_quick, is_nfd, is_nfkc, is_nfkd,
};

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::Scalar;
use crate::functions::value_size_limit::check_value;
use crate::sqlstate;

/// Registers the functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    let texts = || vec![DataType::Utf8View; 2];
    registry.add(Scalar::exact(
        "normalize",
        texts(),
        |_| Ok(DataType::Utf8View),
        |columns| {
            let rows = rows(columns)
                .map(|row| row.map(|(text, form)| normalized(text, Form::named(form)?)).transpose());
            Ok(Arc::new(rows.collect::<Result<StringViewArray, Error>>()?))
        },
    ));
    registry.add(Scalar::exact(
        "is_normalized",
        texts(),
        |_| Ok(DataType::Boolean),
        |columns| {
            let rows =
                rows(columns).map(|row| row.map(|(text, form)| Ok(Form::named(form)?.has(text))).transpose());
            Ok(Arc::new(rows.collect::<Result<BooleanArray, Error>>()?))
        },
    ));
}

/// Returns each row's text and form, or none if one is NULL.
fn rows(columns: &[ArrayRef]) -> impl Iterator<Item = Option<(&str, &str)>> {
    let (texts, forms) = (columns[0].as_string_view(), columns[1].as_string_view());
    texts.iter().zip(forms).map(|(text, form)| Some((text?, form?)))
}

#[derive(Clone, Copy)]
enum Form {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
}

impl Form {
    fn named(name: &str) -> Result<Form, Error> {
        Ok(match name.to_ascii_uppercase().as_str() {
            "NFC" => Form::Nfc,
            "NFD" => Form::Nfd,
            "NFKC" => Form::Nfkc,
            "NFKD" => Form::Nfkd,
            _ => {
                return Err(Error::invalid(format!("invalid normalization form: {name}"))
                    .hint("The forms are NFC, NFD, NFKC and NFKD.")
                    .code(sqlstate::INVALID_PARAMETER_VALUE));
            }
        })
    }

    fn has(self, text: &str) -> bool {
        match self {
            Form::Nfc => is_nfc(text),
            Form::Nfd => is_nfd(text),
            Form::Nfkc => is_nfkc(text),
            Form::Nfkd => is_nfkd(text),
        }
    }
}

fn normalized(text: &str, form: Form) -> Result<String, Error> {
    if matches!(form, Form::Nfc) && is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Ok(text.to_string());
    }
    let mut chars: Box<dyn Iterator<Item = char> + '_> = match form {
        Form::Nfc => Box::new(text.nfc()),
        Form::Nfd => Box::new(text.nfd()),
        Form::Nfkc => Box::new(text.nfkc()),
        Form::Nfkd => Box::new(text.nfkd()),
    };
    let mut out = String::with_capacity(text.len());
    // One character may become 18.
    chars.try_for_each(|c| {
        check_value("normalize", out.len() + c.len_utf8())?;
        out.push(c);
        Ok::<_, Error>(())
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn texts_have_normal_forms() {
        let tables =
            Tables::new().table("t", "(s TEXT)", "VALUES (U&'\\0061\\0308bc'), ('abc'), (NULL), ('ﬁ')");
        tables.check(
            "SELECT normalize(s), s IS NORMALIZED, s IS NOT NFD NORMALIZED FROM t",
            &["NULL|NULL|NULL", "abc|true|false", "äbc|false|false", "ﬁ|true|false"],
        );
        tables.check("SELECT normalize(s, nfkc), length(normalize(s, NFD)) FROM t WHERE s = 'ﬁ'", &["fi|1"]);
        tables.fails(
            "SELECT normalize(s, nfx) FROM t",
            "invalid normalization form: nfx\nHINT: The forms are NFC, NFD, NFKC and NFKD.",
        );
    }
}
